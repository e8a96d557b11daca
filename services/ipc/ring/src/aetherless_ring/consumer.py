# SPDX-License-Identifier: Apache-2.0
"""The consumer of the reference ring."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_ring.end import RECORD_HEAD, End, checksum
from aetherless_ring.errors import RingCorruptError, RingEmptyError
from aetherless_ring.layout import ALIGNMENT, HEAD, SKIP, ControlField, Sleep, stride_of
from aetherless_ring.slots import Batch, Member, Slot

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

    from aetherless_ring.layout import Direction


class Consumer(End):
    """The end that takes records out.

    Args:
        memory, direction, ring_bytes, doorbell: as any end's.
        resume: go on where the consumer before this one let go, in a region that its producer
            still writes to.

    Raises:
        ValueError: as any end.
        RingCorruptError: the indices of a ring to be resumed can't be.
    """

    def __init__(
        self,
        memory: Buffer,
        direction: Direction,
        ring_bytes: int,
        doorbell: int = -1,
        *,
        resume: bool = False,
    ) -> None:
        super().__init__(memory, direction, ring_bytes, doorbell)
        self._given = 0
        self._any_sequence = resume
        if resume:
            self._resume()

    def _resume(self) -> None:
        consumed, produced = self._index(ControlField.CONSUMED), self._index(ControlField.PRODUCED)
        apart = produced - consumed
        aligned = not (consumed % ALIGNMENT or produced % ALIGNMENT)
        if not (aligned and 0 <= apart <= self._layout.ring_bytes):
            raise self._damaged("index", produced, consumed)
        self._own = self._other = self._given = consumed
        self._beds[ControlField.CONSUMER_ASLEEP // 4] = Sleep.AWAKE

    def hold(self, timeout: float = 0.0, spin: float = 0.0, /) -> tuple[int, bytes, int]:
        """Take a record out and keep its place: its type, its payload, and where it ends.

        As ``receive``, but the record stays in the ring until its end, or a later one's, is given
        to ``release``: a consumer that resumes after this one's death finds it again.
        """
        if timeout > 0:
            self.wait(timeout, spin)
        with self._lock:
            self._begin()
            kind, payload = self._take()
            return kind, payload, self._own

    def release(self, end: int | None = None, /) -> None:
        """Give the places of held records back: up to one's end, or all.

        Raises:
            ValueError: no held record ends there.
        """
        with self._lock:
            self._begin()
            chosen = self._own if end is None else end
            if not self._given <= chosen <= self._own or chosen % ALIGNMENT:
                raise ValueError("no held record ends there")
            self._give_back(chosen)

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
            self._give_back(self._own)
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
                self._give_back(self._own)
        return taken

    def receive_alike(self, limit: int, /) -> tuple[int, list[bytes]]:
        """Take up to ``limit`` records of one type out: the type, and a list of payloads.

        The list ends before a record of another type; it is empty when there are none.

        Raises:
            RingCorruptError: as ``receive_many``.
        """
        kind = 0
        payloads: list[bytes] = []
        with self._lock:
            self._begin()
            try:
                while len(payloads) < limit:
                    crc, length, found = self._next()
                    if payloads and found != kind:
                        break
                    payloads.append(self._copy_out(crc, length, found))
                    kind = found
            except RingEmptyError:
                pass
            except RingCorruptError:
                if not payloads:
                    raise
            if payloads:
                self._give_back(self._own)
        return kind, payloads

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

    def peek_many(self, limit: int, /) -> Batch:
        """Return a batch: up to ``limit`` records as read-only buffers in the ring.

        Raises:
            RingCorruptError: as ``receive_many``.
        """
        members: list[Member] = []
        with self._lock:
            self._begin()
            before = self._own, self._sequence, self._any_sequence
            try:
                while len(members) < limit:
                    members.append(self._peek_member())
            except RingEmptyError:
                pass
            except RingCorruptError:
                if not members:
                    raise
            finally:
                self._own, self._sequence, self._any_sequence = before
            self._slot = Batch(self, members, writable=False)
            return self._slot

    def _peek_member(self) -> Member:
        crc, length, kind = self._next()
        payload = self._payload(length)
        self._check(crc, length, kind, payload)
        member = Member(self._own, self._sequence, kind, payload.toreadonly())
        self._pass(stride_of(length))
        return member

    def wait(self, timeout: float, spin: float = 0.0) -> bool:
        """Wait for a record, spinning first; both times in seconds."""
        return self._wait(0, ControlField.CONSUMER_ASLEEP, timeout, spin)

    def doze(self) -> bool:
        """Ask to be woken by the doorbell; False when a record is there already."""
        return self._ring_for(0, ControlField.CONSUMER_ASLEEP)

    def _look(self, length: int) -> bool:
        """Tell whether a record is there."""
        del length
        if self._damage:
            raise self._damage
        if self._own != self._other:
            return True
        produced = self._index(ControlField.PRODUCED)
        if not self._other <= produced <= self._given + self._layout.ring_bytes:
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
        words = RECORD_HEAD.unpack_from(self._data, self._own % self._layout.ring_bytes)
        crc, length, kind, sequence = words
        largest, there = self._layout.largest_payload, self._other - self._own
        stride = self._left() if length == SKIP else stride_of(length)
        if length != SKIP and (not 0 < length <= largest or stride > self._left()):
            raise self._damaged("length", largest, length)
        if stride > there:
            raise self._damaged("length", there, stride)
        if self._any_sequence:
            self._sequence = sequence
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
        return kind, self._copy_out(crc, length, kind)

    def _copy_out(self, crc: int, length: int, kind: int) -> bytes:
        payload = bytes(self._payload(length))  # the copy is checked, so it can't change after
        self._check(crc, length, kind, payload)
        self._pass(stride_of(length))
        self._count(length)
        return payload

    def _pass(self, stride: int) -> None:
        self._own += stride
        self._sequence = self._sequence + 1 & SKIP
        self._any_sequence = False

    def _give_back(self, end: int) -> None:
        """Give the place of the passed records before an index back."""
        self._given = end
        self._set_index(ControlField.CONSUMED, end)
        self._wake(ControlField.PRODUCER_ASLEEP)

    def _close_slot(self, length: int, kind: int) -> None:
        """Give the peeked record's place back."""
        del kind
        self._slot = None
        self._pass(stride_of(length))
        self._count(length)
        self._give_back(self._own)

    def _close_batch(self, batch: Batch, kind: int | None) -> None:
        """Give the peeked records' places back."""
        del kind
        self._slot = None
        for member in batch.members:
            self._own, self._sequence = member.index, member.sequence
            self._pass(stride_of(len(member.view)))
            self._count(len(member.view))
        if batch.members:
            self._give_back(self._own)
