# SPDX-License-Identifier: Apache-2.0
"""The ids that the registry chooses in the other services, and how to read them back."""

from __future__ import annotations

import re
import secrets
from typing import NamedTuple

INSTANCES = "instances/"
ENDPOINTS = "endpoints/"
SNAPSHOTS = "snapshots/"
FUNCTIONS = "functions/"
ROUTES = "routes/"
ROOTS = "roots/"
CHANNELS = "channels/"
PIPELINES = "pipelines/"

_FUNCTION = r"[A-Za-z0-9_-]{1,64}(?:\.check[0-9a-f]{6})?"
_REVISION = rf"(?P<function>{_FUNCTION})-r(?P<revision>[1-9][0-9]*)"
_SNAPSHOT = re.compile(_REVISION)
_SANDBOX = re.compile(rf"{_REVISION}-(?:golden|0)")


class Owner(NamedTuple):
    """Whose a resource is: a revision of a function."""

    function: str
    revision: int


def golden_id(function: str, revision: int) -> str:
    """Return the id of the instance, and of its endpoint, that is really started."""
    return f"{function}-r{revision}-golden"


def instance_id(function: str, revision: int) -> str:
    """Return the id of the instance, and of its endpoint, that serves."""
    return f"{function}-r{revision}-0"


def snapshot_id(function: str, revision: int) -> str:
    """Return the id of a revision's snapshot."""
    return f"{function}-r{revision}"


def check_id(function: str) -> str:
    """Return a new id of a check of what would be ``function``; no function can have it."""
    return f"{function}.check{secrets.token_hex(3)}"


def is_check(function: str) -> bool:
    """Tell whether the other services' function is a check, which nobody declares."""
    return "." in function


def sandbox_owner(name: str) -> Owner | None:
    """Return whose an instance or endpoint is; None when the registry did not name it."""
    return _owner(_SANDBOX.fullmatch(name))


def snapshot_owner(name: str) -> Owner | None:
    """Return whose a snapshot is; None when the registry did not name it."""
    return _owner(_SNAPSHOT.fullmatch(name))


def bare(name: str, collection: str) -> str:
    """Return the id in a resource name: ``bare("instances/a-r1-0", INSTANCES)`` is ``a-r1-0``."""
    return name.removeprefix(collection)


def _owner(match: re.Match[str] | None) -> Owner | None:
    """Turn what was read back into an owner."""
    return Owner(match["function"], int(match["revision"])) if match else None
