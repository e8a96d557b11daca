# SPDX-License-Identifier: Apache-2.0
"""A peer process: sends each record back reversed until one of type 0xFFFF comes."""

from __future__ import annotations

import importlib
import mmap
import os
import sys

from aetherless_ring.layout import Direction

LAST = 0xFFFF
LIMIT_S = 60.0


def main(implementation: str, descriptor: int, ring_bytes: int) -> None:
    """Answer."""
    module = importlib.import_module(
        "aetherless_ring._native" if implementation == "native" else "aetherless_ring.reference"
    )
    memory = mmap.mmap(descriptor, os.fstat(descriptor).st_size)
    incoming = module.Consumer(memory, Direction.TO_PEER, ring_bytes)
    outgoing = module.Producer(memory, Direction.FROM_PEER, ring_bytes)
    while incoming.wait(LIMIT_S):
        kind, payload = incoming.receive()
        if kind == LAST:
            return
        outgoing.publish(payload[::-1], kind)
    sys.exit("nothing came")


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]))
