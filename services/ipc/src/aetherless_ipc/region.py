# SPDX-License-Identifier: Apache-2.0
"""Sealed shared memory, and what a peer of a channel is handed: that, and its two eventfds.

Whoever has the descriptors can write every byte of the region, the header too. So the service
writes the header, for the peer to read, and believes nothing that it reads there.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import struct

from aetherless_ring._native import be_wary, ring_doorbell
from aetherless_ring.layout import MAGIC, PAGE, VERSION, Direction, HeaderField, Layout

MFD_NOEXEC_SEAL = 0x0008  # linux/memfd.h, since 6.3; not in Python's os yet
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL


class Memory:
    """Shared memory with a fixed size.

    Args:
        name: shown in /proc/<pid>/maps; at most 249 bytes.
        layout: where things lie in it.
        generation: which one it is, for the header.

    Raises:
        OSError: the kernel refused the memory or a seal.
    """

    def __init__(self, name: str, layout: Layout, generation: int = 0) -> None:
        self.layout = layout
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL
        self.descriptor = os.memfd_create(name, flags)
        try:
            self._fill()
        except OSError:
            os.close(self.descriptor)
            raise
        self.number(generation)

    def number(self, generation: int) -> None:
        """Write which one it is."""
        struct.pack_into("=Q", self._header, HeaderField.GENERATION, generation)

    def mark_closed(self) -> None:
        """Mark it closed; whoever sleeps on it is to be woken then."""
        struct.pack_into("=I", self._header, HeaderField.CLOSED, 1)

    def release(self) -> None:
        """Let go of it, once; the memory lives on until the peer has let go of it too."""
        self._header.close()
        os.close(self.descriptor)

    def _fill(self) -> None:
        """Give the memory its size, its header and its seals, in this order."""
        os.ftruncate(self.descriptor, self.layout.region_bytes)
        # SAFETY: the seals below come before anyone else has the descriptor, so the mapping can't
        # lose its pages (SIGBUS) by a peer's ftruncate.
        self._header = mmap.mmap(self.descriptor, PAGE)
        size, ring = self.layout.region_bytes, self.layout.ring_bytes
        struct.pack_into("=8sIIQQQ", self._header, 0, MAGIC, VERSION, 0, size, ring, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)


class Region(Memory):
    """The memory of one attachment, with the wakes of its two sides.

    Args:
        name: shown in /proc/<pid>/maps; at most 249 bytes.
        layout: where things lie in it.

    Raises:
        OSError: the kernel refused the memory, a seal or a descriptor.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        be_wary()  # peers share the doorbells' flags, O_NONBLOCK too
        super().__init__(name, layout)
        self.wakes: tuple[int, ...] = ()
        try:
            for _ in Direction:
                self.wakes += (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),)
        except OSError:
            self.release()
            raise

    def hand_out(self, generation: int) -> tuple[int, ...]:
        """Write the attachment's number; return region, wake of the peer, wake of the service."""
        self.number(generation)
        return (self.descriptor, *self.wakes)

    def shut(self) -> None:
        """Mark the region closed and wake whoever sleeps on it."""
        self.mark_closed()
        for wake in self.wakes:
            ring_doorbell(wake)

    def release(self) -> None:
        """Let go of it, once; the memory lives on until the peer has let go of it too."""
        super().release()
        for wake in self.wakes:
            os.close(wake)
        self.wakes = ()

    def close(self) -> None:
        """Shut it and let go of it."""
        self.shut()
        self.release()
