# SPDX-License-Identifier: Apache-2.0
"""The ring in pure Python: what every other implementation is held against.

It does the same steps in the same order as ``native/ring.h``, plainly. Python has no fences, so a
side that fell asleep in the very moment of a change is woken by its own slice of LONGEST_SLEEP;
everything else is the same.
"""

from __future__ import annotations

import ctypes
import os
import platform
import struct
import threading
import time
import zlib
from typing import TYPE_CHECKING, Self

from aetherless_ring.errors import (
    PayloadTooLargeError,
    RingClosedError,
    RingCorruptError,
    RingEmptyError,
    RingFullError,
)
from aetherless_ring.layout import (
    ALIGNMENT,
    HEAD,
    SKIP,
    ControlField,
    Direction,
    HeaderField,
    Layout,
    Sleep,
    ring_problem,
    stride_of,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer as Buffer

LONGEST_SLEEP = 0.05
_HEAD = struct.Struct("=IIII")
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


class _End:
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
        control = whole[layout.control_offset(direction) :][: 4 * 128]
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
        self._slot: Slot | None = None
        self._lock = threading.RLock()
        names = ("records", "bytes", "waits", "sleeps", "wakes", "refusals")
        self._counts = dict.fromkeys(names, 0)

    def counts(self) -> dict[str, int]:
        """Return what this end has done, by name."""
        return dict(self._counts)

    def _index(self, field: ControlField) -> int:
        return self._words[field // 8]

    def _set_index(self, field: ControlField) -> None:
        self._words[field // 8] = self._own

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
        """Wake the other side as it asked for, once."""
        how, self._beds[bed // 4] = self._beds[bed // 4], Sleep.AWAKE
        if how == Sleep.AWAKE:
            return
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

    def _look(self, length: int) -> bool:
        raise NotImplementedError


class Producer(_End):
    """The end that puts records in."""

    def publish(self, payload: Buffer, kind: int = 0, /) -> None:
        """Put a record in and wake the consumer.

        Raises:
            RingFullError: there is no room now.
            PayloadTooLargeError: the payload is empty or too large.
            RingCorruptError: the consumer's index can't be.
        """
        with self._lock:
            self._begin()
            self._put(payload, kind)
            self._show()

    def publish_many(self, payloads: Sequence[Buffer], kind: int = 0, /) -> int:
        """Put records in while there is room; return how many.

        Raises:
            PayloadTooLargeError: a payload is empty or too large; those before it are in.
            RingCorruptError: the consumer's index can't be.
        """
        done = 0
        with self._lock:
            self._begin()
            try:
                for payload in payloads:
                    self._put(payload, kind)
                    done += 1
            except RingFullError:
                pass
            finally:
                if done:
                    self._show()
        return done

    def reserve(self, length: int, /) -> Slot:
        """Return a slot: a writable buffer in the ring, to be committed.

        Raises:
            RingFullError, PayloadTooLargeError, RingCorruptError: as ``publish``.
        """
        with self._lock:
            self._begin()
            place = self._reserve(length)
            self._slot = Slot(self, self._data[place : place + length], 0)
            return self._slot

    def wait(self, length: int, timeout: float, spin: float = 0.0) -> bool:
        """Wait for room for a payload, spinning first; both times in seconds."""
        return self._wait(length, ControlField.PRODUCER_ASLEEP, timeout, spin)

    def _look(self, length: int) -> bool:
        """Tell whether there is room for a payload."""
        if self._damage:
            raise self._damage
        if not 0 < length <= self._layout.largest_payload:
            raise PayloadTooLargeError(f"a payload has 1 to {self._layout.largest_payload} bytes")
        if self._fits(length):
            return True
        consumed = self._index(ControlField.CONSUMED)
        if not self._other <= consumed <= self._own or consumed % ALIGNMENT:
            raise self._damaged("index", self._other, consumed)
        self._other = consumed
        return self._fits(length)

    def _skipped(self, length: int) -> int:
        """Return the bytes to the end of the buffer that a record can't use."""
        left = self._layout.ring_bytes - self._own % self._layout.ring_bytes
        return left if stride_of(length) > left else 0

    def _fits(self, length: int) -> bool:
        needed = stride_of(length) + self._skipped(length)
        return self._own + needed - self._other <= self._layout.ring_bytes

    def _reserve(self, length: int) -> int:
        """Return where a payload goes in the data area."""
        try:
            fits = self._look(length)
        except PayloadTooLargeError:
            self._counts["refusals"] += 1
            raise
        if not fits:
            self._counts["refusals"] += 1
            raise RingFullError
        if skipped := self._skipped(length):
            self._write_head(SKIP, 0, b"")
            self._own += skipped
            self._sequence = self._sequence + 1 & SKIP
        return self._own % self._layout.ring_bytes + HEAD

    def _write_head(self, length: int, kind: int, payload: Buffer) -> None:
        crc = checksum(length, kind, self._sequence, payload)
        place = self._own % self._layout.ring_bytes
        _HEAD.pack_into(self._data, place, crc, length, kind, self._sequence)

    def _put(self, payload: Buffer, kind: int) -> None:
        if not 0 <= kind <= SKIP:
            raise ValueError("type has 32 bits")
        source = memoryview(payload).cast("B")
        place = self._reserve(len(source))
        self._data[place : place + len(source)] = source
        self._finish(len(source), kind)

    def _finish(self, length: int, kind: int) -> None:
        """Write the head of a record whose payload is in place."""
        place = self._own % self._layout.ring_bytes + HEAD
        self._write_head(length, kind, self._data[place : place + length])
        self._own += stride_of(length)
        self._sequence = self._sequence + 1 & SKIP
        self._count(length)

    def _show(self) -> None:
        """Make all finished records visible."""
        self._set_index(ControlField.PRODUCED)
        self._wake(ControlField.CONSUMER_ASLEEP)

    def _close_slot(self, length: int, kind: int) -> None:
        """Finish the reserved record with its first ``length`` bytes; none for zero."""
        self._slot = None
        if length:
            self._finish(length, kind)
            self._show()


class Consumer(_End):
    """The end that takes records out."""

    def receive(self) -> tuple[int, bytes]:
        """Take a record out: its type and its payload, copied and checked.

        Raises:
            RingEmptyError: there is no record now.
            RingCorruptError: what the producer wrote can't be.
        """
        with self._lock:
            self._begin()
            taken = self._take()
            self._give_back()
            return taken

    def receive_many(self, limit: int, /) -> list[tuple[int, bytes]]:
        """Take up to ``limit`` records out; an empty list when there are none.

        Raises:
            RingCorruptError: what the producer wrote can't be; told once all before it is out.
        """
        taken: list[tuple[int, bytes]] = []
        with self._lock:
            self._begin()
            try:
                while len(taken) < limit:
                    taken.append(self._take())
            except RingEmptyError:
                pass
            except RingCorruptError:
                if not taken:
                    raise
            if taken:
                self._give_back()
        return taken

    def peek(self) -> Slot:
        """Return a slot: the next record as a read-only buffer in the ring, to be released.

        It is checked now; a producer that is not trusted can change it afterwards.

        Raises:
            RingEmptyError, RingCorruptError: as ``receive``.
        """
        with self._lock:
            self._begin()
            crc, length, kind = self._next()
            payload = self._payload(length)
            self._check(crc, length, kind, payload)
            self._slot = Slot(self, payload.toreadonly(), kind)
            return self._slot

    def wait(self, timeout: float, spin: float = 0.0) -> bool:
        """Wait for a record, spinning first; both times in seconds."""
        return self._wait(0, ControlField.CONSUMER_ASLEEP, timeout, spin)

    def doze(self) -> bool:
        """Ask to be woken by the doorbell; False when a record is there already."""
        self._beds[ControlField.CONSUMER_ASLEEP // 4] = Sleep.ON_DOORBELL
        if not self._is_fulfilled(0):
            return True
        self._beds[ControlField.CONSUMER_ASLEEP // 4] = Sleep.AWAKE
        return False

    def _look(self, length: int) -> bool:
        """Tell whether a record is there."""
        del length
        if self._damage:
            raise self._damage
        if self._own != self._other:
            return True
        produced = self._index(ControlField.PRODUCED)
        if not self._other <= produced <= self._own + self._layout.ring_bytes:
            raise self._damaged("index", self._other, produced)
        if produced % ALIGNMENT:
            raise self._damaged("index", self._other, produced)
        self._other = produced
        return self._own != self._other

    def _next(self) -> tuple[int, int, int]:
        """Return checksum, length and type of the next record, its words checked."""
        while True:
            if not self._look(0):
                self._counts["refusals"] += 1
                raise RingEmptyError
            crc, length, kind = self._read_head()
            if length != SKIP:
                return crc, length, kind
            self._check(crc, SKIP, kind, b"")
            self._pass(self._left())

    def _left(self) -> int:
        return self._layout.ring_bytes - self._own % self._layout.ring_bytes

    def _read_head(self) -> tuple[int, int, int]:
        words = _HEAD.unpack_from(self._data, self._own % self._layout.ring_bytes)
        crc, length, kind, sequence = words
        largest, there = self._layout.largest_payload, self._other - self._own
        stride = self._left() if length == SKIP else stride_of(length)
        if length != SKIP and (not 0 < length <= largest or stride > self._left()):
            raise self._damaged("length", largest, length)
        if stride > there:
            raise self._damaged("length", there, stride)
        if sequence != self._sequence:
            raise self._damaged("sequence", self._sequence, sequence)
        return crc, length, kind

    def _payload(self, length: int) -> memoryview:
        place = self._own % self._layout.ring_bytes + HEAD
        return self._data[place : place + length]

    def _check(self, crc: int, length: int, kind: int, payload: Buffer) -> None:
        actual = checksum(length, kind, self._sequence, payload)
        if actual != crc:
            raise self._damaged("checksum", crc, actual)

    def _take(self) -> tuple[int, bytes]:
        """Take the next record out; its place is not given back yet."""
        crc, length, kind = self._next()
        payload = bytes(self._payload(length))  # the copy is checked, so it can't change after
        self._check(crc, length, kind, payload)
        self._pass(stride_of(length))
        self._count(length)
        return kind, payload

    def _pass(self, stride: int) -> None:
        self._own += stride
        self._sequence = self._sequence + 1 & SKIP

    def _give_back(self) -> None:
        """Give the place of all passed records back."""
        self._set_index(ControlField.CONSUMED)
        self._wake(ControlField.PRODUCER_ASLEEP)

    def _close_slot(self, length: int, kind: int) -> None:
        """Give the peeked record's place back."""
        del kind
        self._slot = None
        self._pass(stride_of(length))
        self._count(length)
        self._give_back()


class Slot:
    """A payload in the ring; a context manager that releases it. ``view`` is its buffer."""

    def __init__(self, end: Producer | Consumer, view: memoryview, kind: int) -> None:
        self._end: Producer | Consumer | None = end
        self._length = len(view)
        self.view = view
        self.type = kind

    def commit(self, length: int | None = None, type: int = 0) -> None:  # noqa: A002  # the field's name
        """Finish a reserved record, of its first ``length`` bytes, and wake the consumer."""
        end = self._open()
        if not isinstance(end, Producer):
            raise TypeError("it was peeked at")
        chosen = self._length if length is None else length
        if not 0 < chosen <= self._length:
            raise ValueError(f"length must be 1 to {self._length}")
        self._end = None
        end._close_slot(chosen, type)  # noqa: SLF001  # an end and its slot are one thing

    def release(self) -> None:
        """Give a peeked record's place back, or a reserved one up."""
        end, self._end = self._end, None
        if end is not None:
            end._close_slot(0 if isinstance(end, Producer) else self._length, 0)  # noqa: SLF001  # as above

    def _open(self) -> Producer | Consumer:
        if self._end is None:
            raise ValueError("the record is finished")
        return self._end

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.release()
