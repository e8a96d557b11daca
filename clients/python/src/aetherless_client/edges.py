# SPDX-License-Identifier: Apache-2.0
"""Edges of pipelines: the regions through which stages hand records on, seen from either end."""

from __future__ import annotations

import threading
from collections import deque
from typing import TYPE_CHECKING, Any

from aetherless_client.calls import Request
from aetherless_client.errors import PeerGoneError
from aetherless_ring import Consumer, Producer, RingEmptyError
from aetherless_ring.layout import Direction, stride_of

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_client.region import Region

# In the control block: the runs that an at-most-once consumer has, then the generation of the one
# that let go.
SLOTS_OFFSET = 512
SLOTS = 256


class Held:
    """A record that was taken from an input and is not let go of.

    Args:
        source: the input.
        request: what it carries.
        end: the index after it.
    """

    __slots__ = ("abandoned", "done", "end", "request", "slot", "source")

    def __init__(self, source: Input, request: Request, end: int) -> None:
        self.source = source
        self.request = request
        self.end = end
        self.done = False
        self.abandoned = False
        self.slot = 0

    def let_go(self) -> None:
        """Say that nobody needs the record any more."""
        self.source.let_go(self)

    def abandon(self) -> None:
        """Leave the record to the next consumer of its region."""
        self.source.abandon(self)


class Input:
    """The consuming end of an edge's region. One thread takes; any lets go.

    Args:
        region: what was handed out; owned from now on.
        place: which of the stage's inputs it is.
        generation: counts the consumers of this region.
        seen: records that begin below this index may have been handled before.
        at_most_once: the place of a record is given back before it is handled.

    Raises:
        RingCorruptError: the indices can't be.
    """

    def __init__(
        self, region: Region, *, place: int, generation: int, seen: int, at_most_once: bool
    ) -> None:
        self.place = place
        self.wake = region.wake
        self.region: Region | None = region
        self._generation = generation
        self._seen = 0 if at_most_once else seen
        control = region.layout.control_offset(Direction.TO_PEER) + SLOTS_OFFSET
        size = (SLOTS + 1) * 8
        self._slots = memoryview(region.memory)[control : control + size].cast("Q")
        ring_bytes = region.layout.ring_bytes
        self._consumer = Consumer(
            region.memory, Direction.TO_PEER, ring_bytes, region.bell, resume=True
        )
        self._free = list(range(SLOTS)) if at_most_once else None
        self._held: deque[Held] = deque()
        self._lock = threading.Lock()
        self._dropped = False

    def take(self, spin: float = 0.0) -> Held | None:
        """Return the next record, looking for it for ``spin`` seconds; None when there is none.

        Raises:
            RingCorruptError, RingClosedError: as the ring's ``hold``.
        """
        if self._free is not None and not self._free:
            return None
        while True:
            try:
                _, payload, end = self._consumer.hold(spin, spin)
            except RingEmptyError:
                return None
            request = Request.parse(payload)
            if self._seen and request is not None:
                request = self._told_again(request, end - stride_of(len(payload)))
            held = Held(self, request or MALFORMED, end)
            self._held.append(held)
            if self._free is not None:
                self._give_up(held)
            if request is not None:
                return held
            held.let_go()

    def source(self, way: int) -> tuple[Any, ...]:
        """Return this as a source of the fast path's server, whose records go a way of its own."""
        return self._consumer, self.wake, self._seen, self._free, way

    def adopt(self, request: Request, end: int, slot: int | None) -> Held:
        """Hold a record that the fast path took."""
        held = Held(self, request, end)
        held.slot = slot or 0
        with self._lock:
            self._held.append(held)
        return held

    def doze(self) -> bool:
        """Ask for the bell; False when a record is there that may be taken."""
        return self._consumer.doze() or (self._free is not None and not self._free)

    def let_go(self, held: Held) -> None:
        """Take note that a record was handled."""
        with self._lock:
            held.done = True
            if self.region is None:
                return
            if self._free is not None:
                self._slots[held.slot] = 0
                self._free.append(held.slot)
            self._give_back()
            if self._dropped:
                self._close_when_idle(self.region)

    def abandon(self, held: Held) -> None:
        """Take note that a record will not be handled: it stays in the region."""
        held.abandoned = True

    def drop(self) -> None:
        """Let go of the region as soon as no record of it is being handled."""
        with self._lock:
            self._dropped = True
            if self.region is not None:
                self._close_when_idle(self.region)

    def close(self) -> None:
        """Let go of the region now; what is being handled is for the next consumer."""
        with self._lock:
            if self.region is not None:
                self._close(self.region)

    def _told_again(self, request: Request, begin: int) -> Request:
        """Return a request with a higher attempt, if it may have been handled before."""
        if begin < self._seen:
            return request._replace(attempt=request.attempt + 1)
        self._seen = 0
        return request

    def _give_up(self, held: Held) -> None:
        """Note a run, then give its record's place back: at most once."""
        with self._lock:
            free = self._free or []
            held.slot = free.pop()
            self._slots[held.slot] = held.request.id
            self._consumer.release(held.end)

    def _give_back(self) -> None:
        """Give the places of the oldest records back, up to the first that is being handled."""
        held, end = self._held, None
        while held and held[0].done:
            end = held.popleft().end
        if end is not None and self._free is None:
            self._consumer.release(end)

    def _close_when_idle(self, region: Region) -> None:
        if all(held.done or held.abandoned for held in self._held):
            self._close(region)

    def close_inherited(self) -> None:
        """Let go in a child process, without a word: the region is its parent's."""
        if self.region is not None:
            self._forget(self.region)

    def _close(self, region: Region) -> None:
        self._slots[SLOTS] = self._generation
        self._forget(region)

    def _forget(self, region: Region) -> None:
        self._slots.release()
        # The mapping goes with the end, which has a view of it.
        del self._consumer
        self.region = None
        region.close()


class Output:
    """The producing end of an edge's region. Safe with threads.

    ``producer`` is the end itself, for the fast path.

    Args:
        region: what was handed out; owned from now on.
        number: which of the edge's regions it is.
    """

    def __init__(self, region: Region, number: int) -> None:
        self.number = number
        self.largest = region.layout.largest_payload
        self.region: Region | None = region
        ring_bytes = region.layout.ring_bytes
        self.producer = Producer(region.memory, Direction.TO_PEER, ring_bytes, region.bell)
        self._lock = threading.Lock()

    def publish(self, payload: bytes, kind: int) -> None:
        """Put a record in.

        Raises:
            RingFullError, RingCorruptError: as the ring's ``publish``.
            PeerGoneError: the region was dropped.
        """
        with self._lock:
            if self.region is None:
                raise PeerGoneError("the edge was dropped")
            self.producer.publish(payload, kind)

    def wait(self, length: int, seconds: float) -> None:
        """Wait for room for a while.

        Raises:
            RingCorruptError, RingClosedError: as the ring's ``wait``.
        """
        wait: Callable[[int, float], bool] | None = None
        with self._lock:
            if self.region is not None:
                wait = self.producer.wait
        if wait:
            wait(length, seconds)

    def close(self) -> None:
        """Let go of the region; more than once does nothing."""
        with self._lock:
            self.close_inherited()

    def close_inherited(self) -> None:
        """Let go in a child process, where another thread's lock is never let go of."""
        region, self.region = self.region, None
        if region is not None:
            del self.producer
            region.close()


MALFORMED = Request(0, 0, 0, b"", "", b"")
