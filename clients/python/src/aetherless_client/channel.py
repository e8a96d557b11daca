# SPDX-License-Identifier: Apache-2.0
"""A channel that this process is attached to: records in, records out, until the service ends it.

Waiting is in one place, on the doorbells of all rings and the control socket, so that the end of
the service is seen as soon as a record is.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any, Self

from aetherless_client.calls import Status, response
from aetherless_client.errors import PeerGoneError
from aetherless_client.lines import LONGEST_LINE, Line
from aetherless_client.region import DESCRIPTORS
from aetherless_client.stages import Stages
from aetherless_ring import IMPLEMENTATION, Consumer, Producer, RingClosedError, RingEmptyError
from aetherless_ring.errors import RingFullError
from aetherless_ring.layout import Direction, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

    from aetherless_client.fastpath import FastPath
    from aetherless_client.region import Region

# A bell may be missed only by the reference, which has no fences.
LONGEST_SLEEP_S = 1.0 if IMPLEMENTATION == "native" else 0.05
# How often a producer that waits for room looks whether the service lives.
ROOM_SLICE_S = 0.02
# How long the service may take to make room for the news that an edge is damaged.
TELL_S = 1.0
BELL_BYTES = 8
FOREVER = float("inf")


class Channel:
    """One attachment; a context manager. One thread reads, any publish.

    ``fast`` is the fast path of its requests, while there is one; ``producer`` and ``poll_number``
    are for that.

    Args:
        control: the socket whose end is the attachment's; owned from now on.
        region: what was handed out; owned from now on.
    """

    def __init__(self, control: socket.socket, region: Region) -> None:
        self._control: socket.socket | None = control
        self._control_number = control.fileno()
        self._region = region
        self._poll = select.epoll()
        self.poll_number = self._poll.fileno()
        self._poll.register(control, select.EPOLLIN | select.EPOLLRDHUP)
        self._poll.register(region.wake, select.EPOLLIN)
        ring_bytes = region.layout.ring_bytes
        self._consumer = Consumer(region.memory, Direction.TO_PEER, ring_bytes, region.bell)
        self.producer = Producer(region.memory, Direction.FROM_PEER, ring_bytes, region.bell)
        self._rung = bytearray(BELL_BYTES)
        self._lock = threading.Lock()
        self.layout = region.layout
        self.generation = region.generation
        self.fast: FastPath | None = None
        self.stages = Stages(self._poll, self._tell_damaged, self.leave_fast_path)
        self.is_leaving = False
        self._damaged_edges: deque[str] = deque()

    def receive(self, timeout: float | None = None, *, spin: float = 0.0) -> tuple[int, bytes]:
        """Return the next record's type and payload; waits for one.

        Args:
            timeout: seconds to wait; None waits for ever.
            spin: seconds to look again and again before sleeping.

        Raises:
            RingEmptyError: none came in that time.
            PeerGoneError: the service ended the attachment.
            RingCorruptError: what the service wrote can't be; the channel is of no more use.
        """
        until = FOREVER if timeout is None else time.monotonic() + timeout
        while True:
            taken = self.take(spin)
            if taken is not None:
                return taken
            left = until - time.monotonic()
            if left <= 0:
                raise RingEmptyError
            if self.doze():
                self.sleep(left)

    def take(self, spin: float = 0.0) -> tuple[int, bytes] | None:
        """Return the next record's type and payload; None when there is none.

        Args:
            spin: seconds to look for one.

        Raises:
            PeerGoneError, RingCorruptError: as ``receive``.
        """
        if not spin:
            taken = self._consumer.receive_many(1)
            return taken[0] if taken else None
        try:
            return self._consumer.receive(spin, spin)
        except RingEmptyError:
            return None
        except RingClosedError as error:
            raise PeerGoneError("the service closed the region") from error

    def doze(self) -> bool:
        """Ask for the bell; False when a record is there already.

        Raises:
            PeerGoneError, RingCorruptError: as ``receive``.
        """
        try:
            return self._consumer.doze()
        except RingClosedError as error:
            raise PeerGoneError("the service closed the region") from error

    def sleep(self, seconds: float) -> None:
        """Sleep until a bell rings or the service says something, at most so long.

        Raises:
            PeerGoneError: the service ended the attachment.
        """
        said = False
        for descriptor, _ in self._poll.poll(min(seconds, LONGEST_SLEEP_S)):
            if descriptor == self._control_number:
                said = True  # heard last: what is said may close what rang
                continue
            try:
                # Whoever had this end of an edge before has its flags too, O_NONBLOCK as well.
                os.preadv(descriptor, [self._rung], -1, os.RWF_NOWAIT)
            except BlockingIOError:
                continue  # another has heard it
        if said or self._damaged_edges:
            self.hear()

    def source(self) -> tuple[Any, ...]:
        """Return this as a source of the fast path's server."""
        return self._consumer, self._region.wake, 0, None, -1

    def leave_fast_path(self) -> None:
        """End the fast path; what is at work there is the ordinary code's from now on."""
        fast, self.fast = self.fast, None
        if fast is not None:
            fast.stop()

    def note_damage(self, edge: str) -> None:
        """Have the thread that reads let go of an edge whose ring is damaged."""
        self._damaged_edges.append(edge)
        self.ring_self()

    def ring_self(self) -> None:
        """End the sleep of the thread that reads."""
        with self._lock:
            if self._control is not None:
                os.eventfd_write(self._region.wake, 1)

    def hear(self) -> None:
        """Do what the service says on the control socket, if it says anything.

        Raises:
            PeerGoneError: the service ended the attachment.
        """
        while True:
            control = self._control
            if control is None:
                raise PeerGoneError("the channel is closed")
            flags = socket.MSG_DONTWAIT | socket.MSG_CMSG_CLOEXEC
            try:
                said, descriptors, _, _ = socket.recv_fds(control, LONGEST_LINE, DESCRIPTORS, flags)
            except BlockingIOError:
                break
            except OSError as error:
                raise PeerGoneError("the service ended the connection") from error
            line = Line.parse(said)
            if line.word in {"", "closed"}:
                raise PeerGoneError("the service ended the connection")
            self.stages.hear(line, descriptors)
        while self._damaged_edges:
            self.stages.become_damaged(self._damaged_edges.popleft())

    def publish(
        self,
        payload: Buffer,
        kind: int,
        timeout: float | None = None,
        *,
        meanwhile: Callable[[], None] | None = None,
    ) -> None:
        """Put a record in; waits for room.

        Args:
            payload: 1 to ``layout.largest_payload`` bytes.
            kind: the record's type.
            timeout: seconds to wait; None waits as long as the attachment lasts.
            meanwhile: called now and then while there is no room; by default ``hear``.

        Raises:
            RingFullError: there was no room in that time.
            PayloadTooLargeError: it is empty or too large.
            PeerGoneError: the service ended the attachment.
            RingCorruptError: what the service wrote can't be; the channel is of no more use.
        """
        until = FOREVER if timeout is None else time.monotonic() + timeout
        while True:
            try:
                return self._put(payload, kind)
            except RingFullError:
                left = until - time.monotonic()
                if left <= 0:
                    raise
            if not self._wait_for_room(memoryview(payload).nbytes, min(left, ROOM_SLICE_S)):
                (meanwhile or self.hear)()

    def _put(self, payload: Buffer, kind: int) -> None:
        with self._lock:
            if self._control is None:
                raise PeerGoneError("the channel is closed")
            self.producer.publish(payload, kind)

    def _wait_for_room(self, length: int, seconds: float) -> bool:
        with self._lock:
            if self._control is None:
                raise PeerGoneError("the channel is closed")
            wait = self.producer.wait
        try:
            return wait(length, seconds)
        except RingClosedError as error:
            raise PeerGoneError("the service closed the region") from error

    def _tell_damaged(self, edge: str) -> None:
        told = response(0, Status.EDGE_DAMAGED, edge.encode())
        try:
            self.publish(told, RecordType.RESPONSE, TELL_S, meanwhile=lambda: None)
        except RingFullError as error:
            raise PeerGoneError("the service takes no answers") from error

    def close(self) -> None:
        """Let go of the regions, the wakes and the control socket; more than once does nothing."""
        with self._lock:
            if self._control is not None:
                self.stages.close()
                self._close(self._control)

    def close_inherited(self) -> None:
        """Let go in a child process, without a word: the attachment is its parent's."""
        if self._control is not None:
            if self.fast is not None:
                self.fast.abandon()
                self.fast = None
            self.stages.close_inherited()
            self._close(self._control)

    def _close(self, control: socket.socket) -> None:
        self._control = None
        self._poll.close()
        control.close()
        # The mapping goes with the last of the two ends, which have views of it.
        del self._consumer, self.producer
        self._region.close()
        del self._region

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
