# SPDX-License-Identifier: Apache-2.0
"""A server of the extension with all that it is given, for tests."""

from __future__ import annotations

import mmap
import os
import select
import struct
from collections import deque
from typing import TYPE_CHECKING, Any, NamedTuple

from unit.ring.rings import LAYOUT, RING

from aetherless_ring import _native
from aetherless_ring.layout import Direction, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

LOOK, HEAR = 0, 1


class Shown(NamedTuple):
    """What a handler is shown; the server knows no more of it than that it has seven fields."""

    id: int
    deadline_ns: int
    attempt: int
    trace: bytes
    method: str
    data: bytes
    inputs: int


def request(
    run: int, data: bytes, method: bytes = b"", deadline: int = 0, trace: bytes = b""
) -> bytes:
    """Return a request's payload."""
    head = struct.pack("<QQIHH", run, deadline, 1, len(trace), len(method))
    return head + trace + method + data


class Bench:
    """A server with a channel, an edge that it reads and one that it writes; a thing to hear.

    Args:
        handler: what it calls.
        slots: the free slots of the edge it reads, which is at-most-once then.
    """

    def __init__(self, handler: Callable[[bytes], Any], slots: list[int] | None = None) -> None:
        self.memory = [mmap.mmap(-1, LAYOUT.region_bytes) for _ in range(3)]
        channel, into, out = self.memory
        self.calls = _native.Producer(channel, Direction.TO_PEER, RING)
        self.answers = _native.Consumer(channel, Direction.FROM_PEER, RING)
        self.into = _native.Producer(into, Direction.TO_PEER, RING)
        self.out = _native.Consumer(out, Direction.TO_PEER, RING)
        self.sources = [_native.Consumer(each, Direction.TO_PEER, RING) for each in (channel, into)]
        self.news = os.eventfd(1)
        self.poll = select.epoll()
        self.poll.register(self.news, select.EPOLLIN)
        self.shown: deque[Shown] = deque(maxlen=5)
        self.sleepers: deque[Any] = deque()
        self.handed_on = 0
        ways = (
            (b"p/a", "first", "one", 1, ((_native.Producer(out, 0, RING), b"p/b"),)),
            (b"p/z", "last", "two", 9, ()),
        )
        self.server = _native.Server(
            reply=_native.Producer(channel, Direction.FROM_PEER, RING),
            sources=((self.sources[0], -1, 0, None, -1), (self.sources[1], -1, 0, slots, 0)),
            ways=ways,
            poll=self.poll.fileno(),
            request_type=Shown,
            show=self.shown.append,
            unshow=lambda _: None,
            find=lambda name: None if name == "nobody" else handler,
            handler=None,
            sleepers=self.sleepers,
            hand_on=self.hand_on,
        )

    def hand_on(self) -> None:
        """Count what threads that sleep would be woken for."""
        self.handed_on += 1

    def answer(self) -> tuple[int, int, int, bytes]:
        """Return the next answer: id, status, stage, data."""
        kind, payload = self.answers.receive()
        assert kind == RecordType.RESPONSE
        return *struct.unpack_from("<QII", payload), payload[16:]

    def word(self, place: int, offset: int) -> int:
        """Return a word of a control block."""
        return int(struct.unpack_from("@Q", self.memory[place], 4096 + offset)[0])

    def close(self) -> None:
        """Give the descriptors back."""
        self.poll.close()
        os.close(self.news)
