# SPDX-License-Identifier: Apache-2.0
"""One program without a configuration file: the same defaults and the same rules."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from aetherless_cli.config import paths
from aetherless_cli.config.load import describe
from aetherless_cli.config.models import Config, FunctionConfig
from aetherless_cli.reasons import error_of
from aetherless_common.errors import InvalidArgument, Violation

DOMAIN = "cli.aetherless"


def single(handler: str, root: str | None, **keys: Any) -> Config:
    """Return the configuration that declares one program.

    Args:
        handler: its path, absolute or relative to the current folder.
        root: its folder, likewise; None means the handler's own.
        keys: further keys of the function; "id" defaults to the handler's name.

    Raises:
        AetherlessError: HANDLER_NOT_FOUND, HANDLER_NOT_EXECUTABLE or CONFIG_INVALID.
    """
    try:
        found = paths.find_handler(handler, Path.cwd())
        folder = paths.find_root(root, Path.cwd(), found) if root else paths.default_root(found)
    except paths.PathError as error:
        metadata = {"field": "handler_path", "problem": error.problem, "remedy": error.remedy}
        domain = DOMAIN if error.reason == "CONFIG_INVALID" else "snapshotter.aetherless"
        raise error_of(domain, error.reason, error.problem, metadata) from error
    keys.setdefault("id", _id_of(found))
    try:
        function = FunctionConfig(
            handler_path=str(found), root=None if folder is None else str(folder), **keys
        )
    except ValidationError as error:
        raise _invalid(error) from error
    return Config(functions=[function])


def _id_of(handler: Path) -> str:
    """Return an id made of a file's name."""
    return re.sub(r"[^A-Za-z0-9_-]+", "-", handler.stem)[:64].strip("-") or "handler"


def _invalid(error: ValidationError) -> InvalidArgument:
    """Return the typed error for keys that are wrong."""
    found = [Violation(*describe(entry)) for entry in error.errors(include_url=False)]
    first = found[0]
    return InvalidArgument(
        "CONFIG_INVALID",
        f"{first.field}: {first.problem}",
        {"field": first.field, "problem": first.problem},
        domain=DOMAIN,
        violations=found,
    )
