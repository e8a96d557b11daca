# SPDX-License-Identifier: Apache-2.0
"""The ring in pure Python: what every other implementation is held against.

It does the same steps in the same order as ``native/ring.h``, plainly. Python has no fences, so a
side that fell asleep in the very moment of a change is woken by its own slice of LONGEST_SLEEP;
everything else is the same.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

from aetherless_ring.end import End, Slot, checksum
from aetherless_ring.errors import (
    PayloadTooLargeError,
    RingCorruptError,
    RingEmptyError,
    RingFullError,
)
from aetherless_ring.layout import ALIGNMENT, HEAD, SKIP, ControlField, Sleep, stride_of

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer as Buffer

__all__ = ["Consumer", "Producer"]

_HEAD = struct.Struct("=IIII")


class Producer(End):
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


class Consumer(End):
    """The end that takes records out."""

    def receive(self, timeout: float = 0.0, spin: float = 0.0, /) -> tuple[int, bytes]:
        """Take a record out: its type and its payload, copied and checked.

        Waits for one up to ``timeout``, spinning first; both in seconds.

        Raises:
            RingEmptyError: there is no record in that time.
            RingCorruptError: what the producer wrote can't be.
            RingClosedError: it waited, and the region was closed.
        """
        if timeout > 0:
            self.wait(timeout, spin)
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
