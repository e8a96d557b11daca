# SPDX-License-Identifier: Apache-2.0
"""The producer of the reference ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_ring.end import RECORD_HEAD, End, checksum
from aetherless_ring.errors import PayloadTooLargeError, RingFullError
from aetherless_ring.layout import ALIGNMENT, HEAD, SKIP, ControlField, stride_of
from aetherless_ring.slots import Batch, Member, Slot

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from _typeshed import ReadableBuffer as Buffer

    from aetherless_ring.layout import Direction


class Producer(End):
    """The end that puts records in.

    Args:
        memory, direction, ring_bytes, doorbell: as any end's.
        push: the consumer spins on another core; a hint that only the extension heeds.

    Raises:
        ValueError: as any end.
    """

    def __init__(
        self,
        memory: Buffer,
        direction: Direction,
        ring_bytes: int,
        doorbell: int = -1,
        *,
        push: bool = False,
    ) -> None:
        super().__init__(memory, direction, ring_bytes, doorbell)
        del push

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

    def reserve_many(self, lengths: Iterable[int], /) -> Batch:
        """Return a batch: writable buffers in the ring, as many as there is room for.

        Raises:
            PayloadTooLargeError, RingCorruptError: as ``publish``; nothing is reserved.
        """
        members = []
        with self._lock:
            self._begin()
            before = self._own, self._sequence
            try:
                for length in lengths:
                    place = self._reserve(length)
                    view = self._data[place : place + length]
                    members.append(Member(self._own, self._sequence, 0, view))
                    self._advance(length)
            except RingFullError:
                pass
            finally:
                self._own, self._sequence = before
            self._slot = Batch(self, members, writable=True)
            return self._slot

    def wait(self, length: int, timeout: float, spin: float = 0.0) -> bool:
        """Wait for room for a payload, spinning first; both times in seconds."""
        return self._wait(length, ControlField.PRODUCER_ASLEEP, timeout, spin)

    def doze(self, length: int, /) -> bool:
        """Ask to be woken by the doorbell; False when there is room for a payload already."""
        return self._ring_for(length, ControlField.PRODUCER_ASLEEP)

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
        RECORD_HEAD.pack_into(self._data, place, crc, length, kind, self._sequence)

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
        self._advance(length)
        self._count(length)

    def _advance(self, length: int) -> None:
        self._own += stride_of(length)
        self._sequence = self._sequence + 1 & SKIP

    def _show(self) -> None:
        """Make all finished records visible."""
        self._set_index(ControlField.PRODUCED, self._own)
        self._wake(ControlField.CONSUMER_ASLEEP)

    def _close_slot(self, length: int, kind: int) -> None:
        """Finish the reserved record with its first ``length`` bytes; none for zero."""
        self._slot = None
        if length:
            self._finish(length, kind)
            self._show()

    def _close_batch(self, batch: Batch, kind: int | None) -> None:
        """Finish the reserved records; none for no type."""
        self._slot = None
        if kind is None or not batch.members:
            return
        for member in batch.members:
            self._own, self._sequence = member.index, member.sequence
            self._finish(len(member.view), kind)
        self._show()
