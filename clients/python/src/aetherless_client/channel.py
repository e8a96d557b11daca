# SPDX-License-Identifier: Apache-2.0
"""A channel that this process is attached to: records in, records out, until the service ends it.

Waiting is on two descriptors at once, the doorbell and the control socket, so that the end of the
service is seen as soon as a record is.
"""

from __future__ import annotations

import os
import select
import time
from typing import TYPE_CHECKING, Self

from aetherless_client.errors import PeerGoneError
from aetherless_ring import IMPLEMENTATION, Consumer, Producer, RingClosedError, RingEmptyError
from aetherless_ring.errors import RingFullError
from aetherless_ring.layout import Direction

if TYPE_CHECKING:
    import mmap
    import socket

    from _typeshed import ReadableBuffer as Buffer

    from aetherless_ring.layout import Layout

# A bell may be missed only by the reference, which has no fences.
LONGEST_SLEEP_S = 1.0 if IMPLEMENTATION == "native" else 0.05
# How often a producer that waits for room looks whether the service lives.
ROOM_SLICE_S = 0.02
BELL_BYTES = 8


class Channel:
    """One attachment; a context manager. Safe with threads, but ``close`` comes last.

    Args:
        control: the socket whose end is the attachment's; owned from now on.
        descriptors: the region, this side's wake, the service's wake; owned from now on.
        memory: the region, mapped.
        layout: where things lie in it.
        generation: the number of this attachment.
    """

    def __init__(
        self,
        control: socket.socket,
        descriptors: list[int],
        memory: mmap.mmap,
        layout: Layout,
        generation: int,
    ) -> None:
        _, self._wake, bell = descriptors
        self._control: socket.socket | None = control
        self._descriptors = descriptors
        self._poll = select.poll()
        self._poll.register(control, select.POLLIN | select.POLLRDHUP)
        self._poll.register(self._wake, select.POLLIN)
        self._consumer = Consumer(memory, Direction.TO_PEER, layout.ring_bytes, bell)
        self._producer = Producer(memory, Direction.FROM_PEER, layout.ring_bytes, bell)
        self.layout = layout
        self.generation = generation

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
        until = None if timeout is None else time.monotonic() + timeout
        try:
            while True:
                try:
                    return self._consumer.receive(spin, spin)
                except RingEmptyError:
                    left = LONGEST_SLEEP_S if until is None else until - time.monotonic()
                    if left <= 0:
                        raise
                if self._consumer.doze():
                    self._sleep(min(left, LONGEST_SLEEP_S))
        except RingClosedError as error:
            raise PeerGoneError("the service closed the region") from error

    def publish(self, payload: Buffer, kind: int, timeout: float | None = None) -> None:
        """Put a record in; waits for room.

        Args:
            payload: 1 to ``layout.largest_payload`` bytes.
            kind: the record's type.
            timeout: seconds to wait; None waits as long as the attachment lasts.

        Raises:
            RingFullError: there was no room in that time.
            PayloadTooLargeError: it is empty or too large.
            PeerGoneError: the service ended the attachment.
            RingCorruptError: what the service wrote can't be; the channel is of no more use.
        """
        until = None if timeout is None else time.monotonic() + timeout
        length = memoryview(payload).nbytes
        try:
            while True:
                try:
                    return self._producer.publish(payload, kind)
                except RingFullError:
                    left = ROOM_SLICE_S if until is None else until - time.monotonic()
                    if left <= 0:
                        raise
                if not self._producer.wait(length, min(left, ROOM_SLICE_S)):
                    self._sleep(0)
        except RingClosedError as error:
            raise PeerGoneError("the service closed the region") from error

    def close(self) -> None:
        """Let go of the region, the wakes and the control socket. Once; later calls do nothing."""
        control, self._control = self._control, None
        if control is None:
            return
        control.close()
        for descriptor in self._descriptors:
            os.close(descriptor)
        # The mapping goes with the last of the two ends, which keep views of it.
        del self._consumer, self._producer

    def _sleep(self, seconds: float) -> None:
        """Sleep until the bell rings, at most so long; PeerGoneError when the socket has ended."""
        for descriptor, _ in self._poll.poll(seconds * 1000):
            if descriptor != self._wake:
                raise PeerGoneError("the service ended the connection")
            try:
                os.read(descriptor, BELL_BYTES)
            except BlockingIOError:
                continue  # another thread has heard it

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()
