# SPDX-License-Identifier: Apache-2.0
"""Reads the configuration file that a command was given."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_cli import errors

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_cli.config import Config


def read(path: Path) -> Config:
    """Return the checked configuration.

    Raises:
        NotFound: CONFIG_NOT_FOUND.
        InvalidArgument: CONFIG_INVALID, with everything that is wrong.
    """
    from aetherless_cli.config import load

    try:
        return load(path)
    except FileNotFoundError as error:
        raise errors.config_not_found(path) from error
    except OSError as error:
        raise errors.config_not_found(path, f"can't be read: {error.strerror}") from error
