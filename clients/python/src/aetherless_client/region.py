# SPDX-License-Identifier: Apache-2.0
"""Regions that were handed out: checked, mapped whole, and let go of."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from typing import NamedTuple

from aetherless_client.errors import InvalidRegionError
from aetherless_ring.layout import MAGIC, VERSION, HeaderField, Layout, ring_problem

DESCRIPTORS = 3
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
_HEADER = struct.Struct("=8sIIQQQ")


class Region(NamedTuple):
    """A mapped region and what came with it.

    Args:
        memory: the whole region.
        layout: where things lie in it.
        generation: the number of this attachment.
        wake: rung for this side.
        bell: rings the other side.
        descriptors: all three, to be closed.
    """

    memory: mmap.mmap
    layout: Layout
    generation: int
    wake: int
    bell: int
    descriptors: tuple[int, ...]

    def close(self) -> None:
        """Close the descriptors; the mapping goes with the last end that has a view of it."""
        close_all(self.descriptors)


def map_region(descriptors: list[int], ring_bytes: int) -> Region:
    """Map a region whole; the descriptors are its own from then on.

    Raises:
        InvalidRegionError: it is no sealed region of this version with rings of that size.
    """
    if len(descriptors) != DESCRIPTORS:
        raise InvalidRegionError(f"{len(descriptors)} descriptors came")
    descriptor, wake, bell = descriptors
    size, layout = os.fstat(descriptor).st_size, Layout(ring_bytes)
    sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    if not sealed or ring_problem(ring_bytes) or size != layout.region_bytes:
        raise InvalidRegionError(f"{size} bytes, sealed: {sealed}")
    # SAFETY: the seals hold, so that the mapping can't lose its pages (SIGBUS).
    memory = mmap.mmap(descriptor, size)
    magic, version, _, region, ring, generation = _HEADER.unpack_from(memory, HeaderField.MAGIC)
    if (magic, version, region, ring) != (MAGIC, VERSION, size, ring_bytes):
        memory.close()
        raise InvalidRegionError(f"header: {magic!r} version {version}")
    return Region(memory, layout, generation, wake, bell, tuple(descriptors))


def close_all(descriptors: list[int] | tuple[int, ...]) -> None:
    """Close descriptors."""
    for descriptor in descriptors:
        os.close(descriptor)
