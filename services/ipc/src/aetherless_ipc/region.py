# SPDX-License-Identifier: Apache-2.0
"""One sealed memfd and its two eventfds: what a peer of a channel is handed.

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


class Region:
    """Shared memory with a fixed size, made for one attachment.

    Args:
        name: shown in /proc/<pid>/maps; at most 249 bytes.
        layout: where things lie in it.

    Raises:
        OSError: the kernel refused the memory, a seal or a descriptor.
    """

    def __init__(self, name: str, layout: Layout) -> None:
        be_wary()  # peers share the doorbells' flags, O_NONBLOCK too
        self.layout = layout
        self.wakes: tuple[int, ...] = ()
        flags = os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING | MFD_NOEXEC_SEAL
        self.descriptor = os.memfd_create(name, flags)
        try:
            self._fill()
            for _ in Direction:
                self.wakes += (os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK),)
        except OSError:
            self._release_descriptors()
            raise

    def hand_out(self, generation: int) -> tuple[int, ...]:
        """Write the attachment's number; return region, wake of the peer, wake of the service."""
        struct.pack_into("=Q", self._header, HeaderField.GENERATION, generation)
        return (self.descriptor, *self.wakes)

    def shut(self) -> None:
        """Mark the region closed and wake whoever sleeps on it."""
        struct.pack_into("=I", self._header, HeaderField.CLOSED, 1)
        for wake in self.wakes:
            ring_doorbell(wake)

    @staticmethod
    def take_rings(wake: int) -> bool:
        """Take what a doorbell was rung; False when it was not.

        The peer shares the descriptor's flags, O_NONBLOCK too: so each read says that it may not
        wait.
        """
        try:
            os.preadv(wake, [bytearray(8)], -1, os.RWF_NOWAIT)
        except BlockingIOError:
            return False
        return True

    def release(self) -> None:
        """Let go of it, once; the memory lives on until the peer has let go of it too."""
        self._header.close()
        self._release_descriptors()

    def close(self) -> None:
        """Shut it and let go of it."""
        self.shut()
        self.release()

    def _fill(self) -> None:
        """Give the memory its size, its header and its seals, in this order."""
        os.ftruncate(self.descriptor, self.layout.region_bytes)
        # SAFETY: the seals below come before anyone else has the descriptor, so the mapping can't
        # lose its pages (SIGBUS) by a peer's ftruncate.
        self._header = mmap.mmap(self.descriptor, PAGE)
        size, ring = self.layout.region_bytes, self.layout.ring_bytes
        struct.pack_into("=8sIIQQQ", self._header, 0, MAGIC, VERSION, 0, size, ring, 0)
        fcntl.fcntl(self.descriptor, fcntl.F_ADD_SEALS, SEALS)

    def _release_descriptors(self) -> None:
        """Close the descriptors."""
        for descriptor in (self.descriptor, *self.wakes):
            os.close(descriptor)
        self.wakes = ()
