# SPDX-License-Identifier: Apache-2.0
"""What both ends of the reference ring are: views of a region, an index, waits."""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING

from aetherless_ring.errors import RingClosedError, RingCorruptError
from aetherless_ring.layout import (
    CACHE_LINES,
    ControlField,
    Direction,
    HeaderField,
    Layout,
    Sleep,
    ring_problem,
)

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

    from aetherless_ring.slots import Batch, Slot

LONGEST_SLEEP = 0.05
RECORD_HEAD = struct.Struct("=IIII")
_WORDS = struct.Struct("<III")
_FUTEX = {"x86_64": 202, "aarch64": 98}
_FUTEX_WAIT, _FUTEX_WAKE = 0, 1
_libc = ctypes.CDLL(None, use_errno=True)


class _Timespec(ctypes.Structure):
    """struct timespec."""

    _fields_ = (("seconds", ctypes.c_long), ("nanoseconds", ctypes.c_long))


def checksum(length: int, kind: int, sequence: int, payload: Buffer) -> int:
    """Return zlib's CRC-32 over a record's words but the first, and its payload."""
    return zlib.crc32(payload, zlib.crc32(_WORDS.pack(length, kind, sequence)))


class End:
    """What both ends have: their views of the region, their index and what they counted.

    Args:
        memory: the whole region, writable.
        direction: which of its two rings.
        ring_bytes: the size of one data area, as the region's maker said it.
        doorbell: the other side's eventfd or pipe, or -1.

    Raises:
        ValueError: the memory is not of that size.
    """

    def __init__(
        self, memory: Buffer, direction: Direction, ring_bytes: int, doorbell: int = -1
    ) -> None:
        layout = Layout(ring_bytes)
        whole = memoryview(memory).cast("B")
        if ring_problem(ring_bytes) or len(whole) != layout.region_bytes or whole.readonly:
            raise ValueError("memory is no region with rings of this size")
        control = whole[layout.control_offset(direction) :][: len(ControlField) * CACHE_LINES]
        self._words = control.cast("Q")
        self._beds = control.cast("I")
        self._closed = whole[HeaderField.CLOSED :][:4].cast("I")
        self._data = whole[layout.data_offset(direction) :][:ring_bytes]
        self._layout = layout
        self._doorbell = doorbell
        self._own = 0
        self._other = 0
        self._sequence = 0
        self._damage: RingCorruptError | None = None
        self._slot: Slot | Batch | None = None
        self._lock = threading.RLock()
        names = ("records", "bytes", "waits", "sleeps", "wakes", "refusals")
        self._counts = dict.fromkeys(names, 0)

    def counts(self) -> dict[str, int]:
        """Return what this end has done, by name."""
        return dict(self._counts)

    def _index(self, field: ControlField) -> int:
        return self._words[field // 8]

    def _set_index(self, field: ControlField, index: int) -> None:
        self._words[field // 8] = index

    def _damaged(self, fault: str, expected: int, actual: int) -> RingCorruptError:
        self._damage = RingCorruptError(fault, expected, actual)
        return self._damage

    def _begin(self) -> None:
        if self._slot is not None:
            raise RuntimeError("a reserved or peeked record is not finished")

    def _count(self, length: int) -> None:
        self._counts["records"] += 1
        self._counts["bytes"] += length

    def _wake(self, bed: ControlField) -> None:
        """Wake the other side as it asked for, once.

        A side that is awake is left alone: it may say in this moment that it sleeps.
        """
        how = self._beds[bed // 4]
        if how == Sleep.AWAKE:
            return
        self._beds[bed // 4] = Sleep.AWAKE
        self._counts["wakes"] += 1
        if how == Sleep.ON_FUTEX:
            self._futex(bed, _FUTEX_WAKE, 1, None)
        elif self._doorbell >= 0:
            try:
                os.write(self._doorbell, struct.pack("=Q", 1))
            except BlockingIOError:
                return  # full: whoever sleeps on it has been rung for

    def _futex(
        self, bed: ControlField, operation: int, value: int, limit: _Timespec | None
    ) -> None:
        word = ctypes.c_uint32.from_buffer(self._beds, int(bed))
        at = ctypes.byref(limit) if limit else None
        number = _FUTEX[platform.machine()]
        _libc.syscall(number, ctypes.byref(word), operation, value, at, None, 0)

    def _wait(self, length: int, bed: ControlField, timeout: float, spin: float) -> bool:
        """Wait until the wish is fulfilled: room for ``length`` bytes, or a record for zero."""
        began = time.monotonic()
        if self._is_fulfilled(length):
            return True
        self._counts["waits"] += 1
        while (waited := time.monotonic() - began) < timeout:
            if waited >= spin:
                self._doze(length, bed, min(LONGEST_SLEEP, timeout - waited))
            if self._is_fulfilled(length):
                return True
        return False

    def _doze(self, length: int, bed: ControlField, seconds: float) -> None:
        self._beds[bed // 4] = Sleep.ON_FUTEX
        if not self._is_fulfilled(length):
            self._counts["sleeps"] += 1
            limit = _Timespec(int(seconds), int(seconds % 1 * 1e9))
            self._futex(bed, _FUTEX_WAIT, Sleep.ON_FUTEX, limit)
        self._beds[bed // 4] = Sleep.AWAKE

    def _is_fulfilled(self, length: int) -> bool:
        with self._lock:
            fulfilled = self._look(length)
        if not fulfilled and self._closed[0]:
            raise RingClosedError
        return fulfilled

    def _ring_for(self, length: int, bed: ControlField) -> bool:
        """Ask to be woken by the doorbell unless the wish is fulfilled."""
        self._beds[bed // 4] = Sleep.ON_DOORBELL
        if not self._is_fulfilled(length):
            return True
        self._beds[bed // 4] = Sleep.AWAKE
        return False

    def _look(self, length: int) -> bool:
        raise NotImplementedError

    def _close_slot(self, length: int, kind: int) -> None:
        raise NotImplementedError

    def _close_batch(self, batch: Batch, kind: int | None) -> None:
        raise NotImplementedError
