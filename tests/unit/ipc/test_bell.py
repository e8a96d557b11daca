# SPDX-License-Identifier: Apache-2.0
"""What the ends of an edge are woken by: neither end makes the other, or the service, wait."""

from __future__ import annotations

import fcntl
import gc
import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless_ipc.bell import RING, Bell
from framework.channel_edges import fill

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture
def bell() -> Iterator[Bell]:
    """Return one; it leaves no descriptor."""
    gc.collect()  # what other tests left is closed now, not meanwhile
    before = descriptors()
    made = Bell()
    yield made
    made.close()
    assert descriptors() == before


def descriptors() -> int:
    """Return how many this process has."""
    return sum(1 for _ in Path("/proc/self/fd").iterdir())


def test_rings_are_heard(bell: Bell) -> None:
    """All that came are one."""
    assert not bell.hear()
    os.write(bell.hammer, RING)
    bell.ring()
    assert bell.hear()
    assert not bell.hear()


def test_a_listener_can_not_make_who_rings_wait(bell: Bell) -> None:
    """Its flags are not those that the others write by; a full pipe refuses at once."""
    fill(bell)
    with pytest.raises(BlockingIOError):
        os.write(bell.hammer, RING)
    bell.ring()
    while bell.hear():
        pass  # an ear that waits, too
    os.write(bell.hammer, RING)
    assert bell.hear()


def test_the_other_end_can_not_make_the_service_wait(bell: Bell) -> None:
    """It has flags of its own to change."""
    fcntl.fcntl(bell.hammer, fcntl.F_SETFL, 0)
    fill(bell)
    bell.ring()


def test_a_ring_that_comes_too_late_is_no_signal() -> None:
    """Who rings keeps the pipe open by itself."""
    bell = Bell()
    kept = os.dup(bell.hammer)
    bell.close()
    assert os.write(kept, RING) == len(RING)
    os.close(kept)
