# SPDX-License-Identifier: Apache-2.0
"""A peer process that produces or consumes without end, until it is killed."""

from __future__ import annotations

import importlib
import mmap
import os
import sys

from aetherless_ring.layout import Direction

WAIT_S = 60.0


def produce(module: object, memory: mmap.mmap, ring_bytes: int) -> None:
    """Put in records that say their number in each of their words."""
    end = module.Producer(memory, Direction.TO_PEER, ring_bytes)  # type: ignore[attr-defined]
    number = 0
    while True:
        payload = number.to_bytes(4, "little") * (1 + number * 37 % 900)
        if end.wait(len(payload), WAIT_S):
            end.publish(payload)
            number += 1


def consume(module: object, memory: mmap.mmap, ring_bytes: int) -> None:
    """Take records out."""
    end = module.Consumer(memory, Direction.TO_PEER, ring_bytes)  # type: ignore[attr-defined]
    while True:
        if end.wait(WAIT_S):
            end.receive()


if __name__ == "__main__":
    implementation, role, descriptor, size = sys.argv[1:]
    name = "_native" if implementation == "native" else "reference"
    ring = importlib.import_module(f"aetherless_ring.{name}")
    region = mmap.mmap(int(descriptor), os.fstat(int(descriptor)).st_size)
    {"produce": produce, "consume": consume}[role](ring, region, int(size))
