# SPDX-License-Identifier: Apache-2.0
"""The watch over armed instances goes on, whatever one of them does."""

from __future__ import annotations

from contextlib import nullcontext
from types import SimpleNamespace
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_snapshotter import errors
from aetherless_snapshotter.instance import ARMED
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.stale import StaleWatch

if TYPE_CHECKING:
    from collections.abc import Callable


@pytest.mark.parametrize("failure", [SandboxError("a-r1-0", "end", "gone"), OSError("busy")])
def test_one_that_cannot_be_ended_is_tried_again(failure: Exception) -> None:
    """Start, which looks at all, does not fail either."""
    stale = errors.snapshot_stale("a-r1", "/lib/a.so", "3 bytes", "5 bytes")
    instance = SimpleNamespace(instance_id="a-r1-0", state=ARMED, snapshot="snapshots/a-r1")
    live = SimpleNamespace(instance=instance, host_files=None)
    table: Any = SimpleNamespace(
        all=lambda: [live], get=lambda _: live, working_on=lambda _: nullcontext(live)
    )
    store: Any = SimpleNamespace(glance=raiser(stale))
    watch = StaleWatch(table, store, raiser(failure))
    watch.start()
    watch.stop()
    assert watch._missed == {"a-r1-0"}


def raiser(error: Exception) -> Callable[..., Any]:
    """Return a function that raises an error."""

    def fail(*_: object) -> None:
        raise error

    return fail
