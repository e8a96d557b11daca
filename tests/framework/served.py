# SPDX-License-Identifier: Apache-2.0
"""What a fake host holds when a function serves, and when nothing is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Sequence

    from .fake_host import FakeHost

NOTHING: dict[str, list[str]] = {
    "instances": [],
    "endpoints": [],
    "snapshots": [],
    "roots": [],
    "channels": [],
    "routes": [],
}


def serving(
    function_id: str = "hello",
    revision: int = 1,
    kept: Sequence[int] = (),
    *,
    channel: bool = False,
) -> dict[str, list[str]]:
    """Return what is there when exactly one revision serves, beside what is kept."""
    name = f"{function_id}-r{revision}-0"
    numbers = sorted([revision, *kept])
    return {
        "instances": [name],
        "endpoints": [name],
        "snapshots": [f"{function_id}-r{number}" for number in numbers],
        "roots": [f"{function_id}/{number}" for number in numbers],
        "channels": [f"{function_id} to {name}, admits {name}"] if channel else [],
        "routes": [f"8080 endpoints/{name}"],
    }


def settled(host: FakeHost, wanted: dict[str, list[str]]) -> None:
    """Wait until exactly this is there."""
    wait_until(lambda: host.names() == wanted, f"{wanted}, there is {host.names()}")
