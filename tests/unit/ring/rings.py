# SPDX-License-Identifier: Apache-2.0
"""Regions in plain memory, and both ends of a ring in them by each implementation."""

from __future__ import annotations

import mmap
from dataclasses import dataclass
from itertools import product
from typing import Any

from aetherless_ring import _native, reference
from aetherless_ring.layout import SMALLEST_RING, Direction, Layout

IMPLEMENTATIONS: dict[str, Any] = {"native": _native, "reference": reference}
# Each against itself and against the other.
PAIRS = tuple(product(IMPLEMENTATIONS, IMPLEMENTATIONS))
RING = SMALLEST_RING
LAYOUT = Layout(RING)


@dataclass
class Pair:
    """Both ends of one ring of a region."""

    memory: mmap.mmap
    producer: Any
    consumer: Any

    @property
    def data(self) -> memoryview:
        """The ring's data area."""
        return memoryview(self.memory)[LAYOUT.data_offset(Direction.TO_PEER) :][:RING]

    @property
    def control(self) -> memoryview:
        """The ring's control block."""
        return memoryview(self.memory)[LAYOUT.control_offset(Direction.TO_PEER) :][:4096]


def pair(producer: str, consumer: str, **keywords: Any) -> Pair:
    """Return a ring with ends of the named implementations."""
    memory = mmap.mmap(-1, LAYOUT.region_bytes)
    return Pair(
        memory,
        IMPLEMENTATIONS[producer].Producer(memory, Direction.TO_PEER, RING, **keywords),
        IMPLEMENTATIONS[consumer].Consumer(memory, Direction.TO_PEER, RING),
    )
