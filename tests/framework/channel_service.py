# SPDX-License-Identifier: Apache-2.0
"""The service's side of one channel, for tests of clients: regions, side socket, requests.

It hands out what the broker hands out and sends what docs/ipc.md says; it stands where Invoke will.
"""

from __future__ import annotations

import contextlib
import itertools
import mmap
import os
import select
import socket
import struct
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from aetherless_ipc.region import Region
from aetherless_ring import Consumer, Producer
from aetherless_ring.layout import (
    SMALLEST_RING,
    VERSION,
    ControlField,
    Direction,
    Layout,
    RecordType,
)

from .processes import wait_until

LIMIT_S = 60.0
_RESPONSE = struct.Struct("<QII")


@dataclass(frozen=True)
class Answer:
    """A response: which request, how it ended, its data; a stage's number plus one."""

    request_id: int
    status: int
    data: bytes
    stage: int = 0


def request(
    number: int,
    data: bytes = b"",
    *,
    method: str = "",
    deadline_ns: int = 0,
    attempt: int = 1,
    trace: bytes = b"",
) -> bytes:
    """Return the payload of a request's record."""
    name = method.encode()
    head = struct.pack("<QQIHH", number, deadline_ns, attempt, len(trace), len(name))
    return head + trace + name + data


def readable(*descriptors: int, timeout_s: float = LIMIT_S) -> list[int]:
    """Wait until one of some descriptors is readable, or its other side has gone; return which."""
    poll = select.poll()
    for descriptor in descriptors:
        poll.register(descriptor, select.POLLIN)
    return [descriptor for descriptor, _ in poll.poll(timeout_s * 1000)]


class Attachment:
    """One client that is attached: its region, and the service's ends of its rings.

    Args:
        control: the client's connection, accepted.
        generation: the number of this attachment.
        ring_bytes: the size of each data area.
    """

    def __init__(self, control: socket.socket, generation: int, ring_bytes: int) -> None:
        layout = Layout(ring_bytes)
        self.control = control
        self._region_closed = False
        self.region = Region(f"aether-test-{generation}", layout)
        descriptors = self.region.hand_out(generation)
        self.memory = mmap.mmap(self.region.descriptor, layout.region_bytes)
        bell, self.wake = self.region.wakes
        self.producer = Producer(self.memory, Direction.TO_PEER, ring_bytes, bell)
        self.consumer = Consumer(self.memory, Direction.FROM_PEER, ring_bytes, bell)
        text = (
            f"ok version={VERSION} generation={generation} "
            f"region_bytes={layout.region_bytes} ring_bytes={ring_bytes}"
        )
        socket.send_fds(control, [text.encode()], descriptors)

    def send(self, payload: bytes, kind: int = RecordType.REQUEST) -> None:
        """Put a record in; waits for room."""
        assert self.producer.wait(len(payload), LIMIT_S), "no room"
        self.producer.publish(payload, kind)

    def receive(self) -> tuple[int, bytes]:
        """Take a record out; waits for one on the doorbell, as the client's bell is tested too."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until and self.consumer.doze():
            if self.control.fileno() in readable(self.wake, self.control.fileno()):
                break  # what it wrote before it let go is still there
            os.eventfd_read(self.wake)
        return self.consumer.receive()

    def answer(self) -> Answer:
        """Return the next response."""
        kind, payload = self.receive()
        assert kind == RecordType.RESPONSE, (kind, payload)
        number, status, stage = _RESPONSE.unpack_from(payload)
        return Answer(number, status, payload[_RESPONSE.size :], stage)

    def send_damaged(self, at: int) -> None:
        """Show a record whose checksum is wrong, at an index where the next one belongs."""
        layout = self.region.layout
        head = struct.pack("=IIII", 0xBAD, 40, RecordType.REQUEST, at // 64)
        place = layout.data_offset(Direction.TO_PEER) + at
        self.memory[place : place + len(head)] = head
        index = layout.control_offset(Direction.TO_PEER) + ControlField.PRODUCED
        struct.pack_into("=Q", self.memory, index, at + 64)
        os.eventfd_write(self.region.wakes[Direction.TO_PEER], 1)

    def has_ended(self, timeout_s: float = LIMIT_S) -> bool:
        """Say whether the client lets go within a time."""
        poll = select.poll()
        poll.register(self.control, select.POLLIN | select.POLLRDHUP)
        return bool(poll.poll(timeout_s * 1000))

    def end(self, word: bytes = b"closed") -> None:
        """Let go, as the broker does; as a service that was killed does when there is no word."""
        if word:
            self.control.send(word)
            self._close_region()
        self.control.close()

    def close(self) -> None:
        """Let go of all that is left; more than once does nothing."""
        self.control.close()
        self._close_region()
        # The mapping has a descriptor too, and goes with the ends that have views of it.
        self.__dict__.pop("producer", None)
        self.__dict__.pop("consumer", None)
        self.__dict__.pop("memory", None)

    def _close_region(self) -> None:
        if not self._region_closed:
            self._region_closed = True
            self.region.close()


class Service:
    """Listens on a side socket; a context manager that lets go of everything.

    Args:
        path: the side socket.
        ring_bytes: the size of each data area.
    """

    def __init__(self, path: Path, ring_bytes: int = SMALLEST_RING) -> None:
        self.path = path
        self.ring_bytes = ring_bytes
        self.numbers = itertools.count(1)
        self._generations = itertools.count(1)
        self._listener: socket.socket | None = None
        self._attachments: list[Attachment] = []

    def listen(self) -> None:
        """Begin to let clients in."""
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
        self._listener.bind(str(self.path))
        self.path.chmod(0o666)
        self._listener.listen()

    def refuse(self) -> None:
        """Let nobody in: the socket is gone, as during a checkpoint."""
        if self._listener:
            self._listener.close()
            self._listener = None
            self.path.unlink()

    def connection(self, timeout_s: float = LIMIT_S) -> socket.socket:
        """Return the next client's connection; nothing was said on it yet."""
        listener = self._listener
        assert listener
        assert readable(listener.fileno(), timeout_s=timeout_s), "no client came"
        return listener.accept()[0]

    def attached(self) -> Attachment:
        """Return the next client, attached."""
        made = Attachment(self.connection(), next(self._generations), self.ring_bytes)
        self._attachments.append(made)
        return made

    def call(self, attachment: Attachment, data: bytes, method: str = "") -> Answer:
        """Send one request and return its answer; nothing else may be in flight."""
        number = next(self.numbers)
        attachment.send(request(number, data, method=method))
        answer = attachment.answer()
        assert answer.request_id == number
        return answer

    def __enter__(self) -> Self:
        self.listen()
        return self

    def __exit__(self, *_: object) -> None:
        self.refuse()
        for attachment in self._attachments:
            attachment.close()


def let_go(pid: int, what: str = "aether-test") -> None:
    """Wait until a process has no region of that name mapped and none of its descriptors open."""

    def remains() -> list[str]:
        found = (Path("/proc", str(pid), "maps")).read_text().splitlines()
        for entry in Path("/proc", str(pid), "fd").iterdir():
            with contextlib.suppress(FileNotFoundError):  # closed since it was listed
                found.append(str(entry.readlink()))
        return [line for line in found if what in line]

    wait_until(lambda: not remains(), f"process {pid} let go of its region")
