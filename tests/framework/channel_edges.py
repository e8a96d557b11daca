# SPDX-License-Identifier: Apache-2.0
"""Edges of pipelines, for tests of clients: the region between two stages, and what is said of it.

A test may be either end of an edge, or give both to clients.
"""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time
from contextlib import suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Self

from aetherless_ipc.bell import RING, Bell
from aetherless_ipc.region import Memory
from aetherless_ring import Consumer, Producer, RingEmptyError
from aetherless_ring.layout import (
    SMALLEST_RING,
    ControlField,
    Direction,
    Layout,
    RecordType,
    Sleep,
)

from .channel_service import LIMIT_S, Attachment, readable, request
from .processes import wait_until

if TYPE_CHECKING:
    from types import TracebackType

SLOTS_OFFSET = 512
SLOTS = 256
LET_GO_OFFSET = SLOTS_OFFSET + 8 * SLOTS
OVER = 7
NO_METHOD = 2
SETTLED = 1 << 60


def fill(bell: Bell) -> None:
    """Do as a hostile listener: have each descriptor that it has wait, and fill the pipe."""
    fcntl.fcntl(bell.ear, fcntl.F_SETFL, 0)
    opened = os.open(f"/proc/self/fd/{bell.ear}", os.O_WRONLY | os.O_NONBLOCK)
    with suppress(BlockingIOError):
        while True:
            os.write(opened, RING)
    os.close(opened)


@dataclass(frozen=True)
class Carried:
    """A record of an edge, read."""

    run: int
    deadline_ns: int
    attempt: int
    trace: bytes
    method: str
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> Carried:
        """Return what a payload says."""
        run, deadline, attempt, trace, method = struct.unpack_from("<QQIHH", payload)
        rest = payload[24:]
        name = rest[trace : trace + method].decode()
        return cls(run, deadline, attempt, rest[:trace], name, rest[trace + method :])


def say(attachment: Attachment, word: str, *descriptors: int, **fields: object) -> None:
    """Send a client a message on the side socket."""
    text = " ".join([word, *(f"{name}={value}" for name, value in fields.items())])
    socket.send_fds(attachment.control, [text.encode()], descriptors)


def declare(
    attachment: Attachment,
    name: str,
    *,
    number: int = 0,
    inputs: int = 0,
    outputs: int = 0,
    delivery: str = "at-least-once",
    method: str = "",
) -> None:
    """Tell a client that it is the stage ``pipeline/stage``."""
    pipeline, stage = name.split("/")
    fields = {"number": number, "inputs": inputs, "outputs": outputs, "delivery": delivery}
    say(attachment, "stage", pipeline=pipeline, stage=stage, **fields, method=method)


def settle(attachment: Attachment) -> None:
    """Wait until a client has read what was said on the side socket; it looks for such a stage."""
    attachment.send(request(SETTLED, method="no/stage"))
    answer = attachment.answer()
    assert (answer.request_id, answer.status) == (SETTLED, NO_METHOD)


class Edge:
    """One region of an edge; a context manager.

    Args:
        name: ``pipeline/from/to``.
        number: which of the edge's regions.
    """

    def __init__(self, name: str, number: int = 1) -> None:
        self.name = name
        self.number = number
        self.layout = Layout(SMALLEST_RING)
        self.region = Memory(f"aether-test-edge-{number}", self.layout, number)
        self.memory = mmap.mmap(self.region.descriptor, self.layout.region_bytes)
        self.of_consumer, self.of_producer = Bell(), Bell()
        ends = (self.memory, Direction.TO_PEER, SMALLEST_RING)
        self.producer = Producer(*ends, self.of_consumer.hammer)
        self.consumer = Consumer(*ends, self.of_producer.hammer)
        self._closed = False
        self._control = self.layout.control_offset(Direction.TO_PEER)

    def feed(
        self, attachment: Attachment, *, generation: int = 1, place: int = 0, seen: int = 0
    ) -> None:
        """Hand the consuming end to a client."""
        wakes = (self.of_consumer.ear, self.of_producer.hammer)
        fields = {"generation": generation, "input": place, "seen": seen}
        self._give(attachment, "consumer", wakes, fields)

    def drain(self, attachment: Attachment) -> None:
        """Hand the producing end to a client."""
        wakes = (self.of_producer.ear, self.of_consumer.hammer)
        self._give(attachment, "producer", wakes, {"generation": 0, "input": 0, "seen": 0})

    def drop(self, attachment: Attachment, role: str) -> None:
        """Tell a client to let go of an end."""
        say(attachment, "edge-drop", name=self.name, role=role, region=self.number)

    def put(self, run: int, data: bytes = b"", **fields: object) -> None:
        """Put a record of a run in."""
        method = "/".join(self.name.split("/")[::2])
        record = request(run, data, method=method, **fields)  # type: ignore[arg-type]  # its own
        assert self.producer.wait(len(record), LIMIT_S), "no room"
        self.producer.publish(record, RecordType.REQUEST)

    def take(self) -> Carried:
        """Take a record out; waits for it on the doorbell."""
        return Carried.parse(self.take_raw())

    def take_raw(self) -> bytes:
        """Take a record's payload out; waits for it on the doorbell."""
        until = time.monotonic() + LIMIT_S
        while time.monotonic() < until:
            try:
                kind, payload = self.consumer.receive()
            except RingEmptyError:
                if self.consumer.doze():
                    readable(self.of_consumer.ear, timeout_s=1.0)
                    self.of_consumer.hear()
                continue
            assert kind == RecordType.REQUEST
            return payload
        raise AssertionError("no record")

    def consumed(self) -> int:
        """Return the consumer's index."""
        return self._word(ControlField.CONSUMED)

    def produced(self) -> int:
        """Return the producer's index."""
        return self._word(ControlField.PRODUCED)

    def runs(self) -> set[int]:
        """Return what the slots of an at-most-once consumer say."""
        words = struct.unpack_from(f"<{SLOTS}Q", self.memory, self._control + SLOTS_OFFSET)
        return set(words) - {0}

    def let_go(self) -> int:
        """Return the generation of the consumer that let go last; 0 for none."""
        return self._word(LET_GO_OFFSET)

    def wait_consumed(self) -> None:
        """Wait until all that was put in is given back."""
        wait_until(lambda: self.consumed() == self.produced(), f"{self.name} is consumed")

    def stop_the_bell(self) -> None:
        """Do as a hostile consumer: ask to be rung for by a bell that is full, and that waits."""
        fill(self.of_consumer)
        at = self._control + ControlField.CONSUMER_ASLEEP
        struct.pack_into("<I", self.memory, at, Sleep.ON_DOORBELL)

    def forge(self, length: int) -> None:
        """Show a record whose checksum is wrong."""
        at, sequence = self.produced(), self.producer.counts()["records"]
        head = struct.pack("=IIII", 0xBAD, length, RecordType.REQUEST, sequence)
        place = self.layout.data_offset(Direction.TO_PEER) + at
        self.memory[place : place + len(head)] = head
        self.set_produced(at + 64)

    def set_produced(self, index: int) -> None:
        """Write the producer's index, and ring for the consumer."""
        self._set_word(ControlField.PRODUCED, index)
        self.of_consumer.ring()

    def set_consumed(self, index: int) -> None:
        """Write the consumer's index."""
        self._set_word(ControlField.CONSUMED, index)

    def close(self) -> None:
        """Mark the region closed and let go of it, as the service does; once."""
        if not self._closed:
            self._closed = True
            self.region.mark_closed()
            for bell in (self.of_consumer, self.of_producer):
                bell.ring()
                bell.close()
            self.region.release()

    def _set_word(self, offset: int, value: int) -> None:
        struct.pack_into("<Q", self.memory, self._control + offset, value)

    def _word(self, offset: int) -> int:
        (word,) = struct.unpack_from("<Q", self.memory, self._control + offset)
        return int(word)

    def _give(
        self, attachment: Attachment, role: str, wakes: tuple[int, int], fields: dict[str, int]
    ) -> None:
        sizes = {"region_bytes": self.layout.region_bytes, "ring_bytes": self.layout.ring_bytes}
        say(
            attachment, "edge", self.region.descriptor, *wakes,
            name=self.name, role=role, region=self.number, **fields, **sizes,
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()
