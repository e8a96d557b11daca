# SPDX-License-Identifier: Apache-2.0
"""One peer that is attached: its control socket, its region, and the calls that it has.

A peer that died may have left a record half written, and one that was cut off may still write. So
each attachment gets a region of its own, which is shut at its end and never handed out again.
"""

from __future__ import annotations

import mmap
import socket
import threading
import weakref
from collections import deque
from enum import Enum
from typing import TYPE_CHECKING, Protocol

import structlog

from aetherless_ipc import errors, records
from aetherless_ipc.bell import take_rings
from aetherless_ipc.reading import Reader
from aetherless_ipc.region import Region
from aetherless_ipc.sparing import peer_log
from aetherless_ring import (
    Consumer,
    PayloadTooLargeError,
    Producer,
    RingCorruptError,
    RingError,
    RingFullError,
)
from aetherless_ring.layout import VERSION, ControlField, Direction, RecordType

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aetherless_ipc.calls import AwaitedCall, Call
    from aetherless_ipc.members import Peer
    from aetherless_ipc.records import Response
    from aetherless_ipc.ringloop import RingLoop
    from aetherless_ipc.stats import Stats
    from aetherless_ring.layout import Layout

log = structlog.get_logger()
SMALLEST_RECORD = 64
AWAKE = 0


class Sent(Enum):
    """What became of a call that was to be sent."""

    YES = "the peer has it, or its attachment takes care of it"
    FULL = "there is no room now"
    GONE = "the attachment has ended"


class Owner(Protocol):
    """Who is told of what an attachment can't do itself; from any thread."""

    stats: Stats

    def used(self, attachment: Attachment) -> None:
        """Take note that a call was sent."""

    def lost(self, calls: list[Call]) -> None:
        """Take calls back that ended with their attachment, without an answer."""

    def stray(self, attachment: Attachment, response: Response) -> bool:
        """Take an answer to a call that the attachment does not have; False for nobody's."""

    def called(self, attachment: Attachment, payload: bytes) -> None:
        """Take a record by which the function calls another one."""


class Attachment(Reader):
    """A peer's region, and the socket on which the service speaks to it.

    Its descriptors are closed with the object, so that no thread that still uses it writes to one
    whose number means something else by then.

    Args:
        channel_id: the channel, which is named as its function.
        instance: its instance that the peer belongs to.
        generation: the number of this attachment.
        control: the peer's connection; owned from now on.
        peer: who it is.
        layout: of the region.
        loop: reads its ring while nobody else does.
        owner: who is told.

    Raises:
        OSError: the region could not be made.
    """

    def __init__(
        self,
        channel_id: str,
        instance: str,
        generation: int,
        control: socket.socket,
        peer: Peer,
        *,
        layout: Layout,
        loop: RingLoop,
        owner: Owner,
    ) -> None:
        self.channel_id = channel_id
        self.instance = instance
        self.generation = generation
        self.control = control
        self.peer = peer
        self.layout = layout
        self.in_flight: dict[int, Call] = {}
        self.made: dict[int, Call] = {}  # calls that the function makes of others
        self.made_bytes = 0
        self.owed: deque[tuple[int, bytes]] = deque()  # answers without room: until when, which
        self._idle = threading.Event()
        self._awaited = False
        self.is_draining = False
        self._owner = owner
        self._fault: RingCorruptError | None = None
        self.region = Region(f"aether-{channel_id}", layout)
        weakref.finalize(self, self.region.release)
        memory = mmap.mmap(self.region.descriptor, layout.region_bytes)
        bell, self._wake = self.region.wakes
        self._producer = Producer(memory, Direction.TO_PEER, layout.ring_bytes, bell)
        asleep = layout.control_offset(Direction.FROM_PEER) + ControlField.CONSUMER_ASLEEP
        self._asleep = memoryview(memory)[asleep : asleep + 4].cast("I")
        consumer = Consumer(memory, Direction.FROM_PEER, layout.ring_bytes, bell)
        super().__init__(consumer, loop, layout.ring_bytes // SMALLEST_RECORD)

    def begin(self) -> None:
        """Say ``ok``, hand the descriptors over, and read what the peer writes.

        Raises:
            OSError: the peer is gone again.
        """
        self._consumer.doze()
        self._loop.add(self._wake, self._rung)
        descriptors = self.region.hand_out(self.generation)
        text = (
            f"ok version={VERSION} generation={self.generation} "
            f"region_bytes={self.layout.region_bytes} ring_bytes={self.layout.ring_bytes}"
        )
        self.send_message(text, descriptors)

    def send_message(self, text: str, descriptors: Sequence[int] = ()) -> None:
        """Send a message on the control socket.

        Raises:
            OSError: the peer is gone, or does not read (BlockingIOError).
        """
        socket.send_fds(self.control, [text.encode()], descriptors)

    def end(self, word: str = "") -> None:
        """Shut the region, say a last word, and end the connection.

        Answers that lie in the ring still count; calls without one go back.
        """
        self.is_over = True
        self._loop.remove(self._wake)
        self.region.shut()
        if word:
            say(self.control, word)
        self._hang_up()
        self._pass_on()

    def send(self, call: Call) -> Sent:
        """Put a call's record in; from then on the attachment ends it or gives it back."""
        if self.is_over:
            return Sent.GONE
        call.attachment = self
        call.attempts += 1
        self.in_flight[call.id] = call
        if self.is_draining:  # looked at last: a detach sets it, then looks at what is in flight
            return self._taken_back(call, Sent.GONE)
        try:
            self._producer.publish(call.record(call.attempts), RecordType.REQUEST)
        except (RingFullError, PayloadTooLargeError) as error:
            return self._refused(call, error)
        except RingCorruptError as error:
            self._spoil(error)
        self._owner.used(self)
        self._see_to_late(call)
        return Sent.YES

    def call(self, call: AwaitedCall) -> Sent:
        """Send a call and wait in its thread until it is over, or went back.

        A thread that can lead does so before it sends: it will look by itself, so that the peer
        need not ring the doorbell for the loop's thread.
        """
        self._followers[call.id] = call
        try:
            sent = self._lead_for(call) if self._lead.acquire(blocking=False) else self.send(call)
            if sent is Sent.YES:
                self._follow(call)
        finally:
            self._step_back(call)
        return sent

    def _lead_for(self, call: AwaitedCall) -> Sent:
        """Send a call as the leader, and read until it is over; lead no more then."""
        try:
            self._asleep[0] = AWAKE
            sent = self.send(call)
            if sent is Sent.YES:
                self._read_for(call)
        finally:
            self._lead.release()
        return sent

    def await_room(self, length: int, seconds: float) -> None:
        """Wait until a record has room, or the time is over, or the attachment."""
        try:
            self._producer.wait(length, seconds)
        except RingCorruptError as error:
            self._spoil(error)
        except RingError as error:
            log.debug("no room to wait for", instance=self.instance, error=str(error))

    def respond(self, payload: bytes, kind: int = RecordType.RESPONSE) -> bool:
        """Put an answer to the peer in; False when there is no room now."""
        try:
            if not self.is_over:
                self._producer.publish(payload, kind)
        except RingFullError:
            return False
        except RingCorruptError as error:
            self._spoil(error)
        return True

    def count_dropped(self) -> None:
        """Count an answer that nobody gets."""
        self._owner.stats.count("dropped_answers")

    def forget(self, call: Call) -> None:
        """Take note that a call is over."""
        self.in_flight.pop(call.id, None)
        if self._awaited and not self.in_flight:
            self._idle.set()

    def await_answers(self, seconds: float) -> int:
        """Wait until nothing is due, at most so long; return how many calls are."""
        self._idle.clear()
        self._awaited = True
        if self.in_flight:
            self._idle.wait(seconds)
        return len(self.in_flight)

    def _refused(self, call: Call, error: RingError) -> Sent:
        """Take a call back that the ring refused, unless the attachment's end took it meanwhile."""
        sent = self._taken_back(call, Sent.FULL)
        if sent is Sent.YES or isinstance(error, RingFullError):
            return sent
        limit = self.layout.largest_payload - (call.length - len(call.data))
        call.fail(errors.payload_too_large(call.function, len(call.data), limit))
        return Sent.YES

    def _taken_back(self, call: Call, sent: Sent) -> Sent:
        """Take a call back that was not sent; YES when the attachment's end took it meanwhile."""
        if self.in_flight.pop(call.id, None) is None:
            return Sent.YES
        self.forget(call)
        call.attachment = None
        call.attempts -= 1
        return sent

    def _see_to_late(self, call: Call) -> None:
        """See to a call that was sent just when it, or the attachment, ended."""
        if call.is_over:
            self.forget(call)
        elif self.is_over and self.in_flight.pop(call.id, None) is not None:
            self._owner.lost([call])

    def _rung(self) -> None:
        """Hear the doorbell; the loop's thread does."""
        if take_rings(self._wake):
            self._drain()

    def _take(self, kind: int, payload: bytes) -> None:
        """Give a record to whom it concerns; one that fails with it does not stop the reading."""
        try:
            if kind == RecordType.RESPONSE:
                self._answered(payload)
            elif kind == records.CALL:
                self._owner.called(self, payload)
            elif kind == RecordType.PING:
                self.respond(payload, RecordType.PONG)
        except Exception:  # noqa: BLE001  # it is logged, sparingly
            peer_log.exception("a record was dropped", instance=self.instance, kind=kind)

    def _damaged(self, error: RingError) -> None:
        """Let go of the peer, unless the ring is closed because the attachment has ended."""
        if isinstance(error, RingCorruptError):
            self._spoil(error)
        elif not self.is_over:
            self._spoil(RingCorruptError("closed", 0, 1))  # the peer wrote the mark

    def _finish(self) -> None:
        """Give the calls back that were not answered, or end them where the ring was damaged."""
        taken = [self.in_flight.pop(number, None) for number in list(self.in_flight)]
        calls = [call for call in taken if call is not None]
        if self._fault is None:
            self._owner.lost(calls)
        for call in calls if self._fault else ():
            call.fail(errors.ring_corrupt(self.channel_id, self.instance, call.attempts))
        for call in list(self.made.values()):
            call.cancel()
        self._idle.set()

    def _spoil(self, error: RingCorruptError) -> None:
        """Let go of a peer that damaged its region; the end of its connection tells the broker."""
        if self.is_over:
            return
        self._fault = error
        self.is_over = True
        self._owner.stats.count("corrupted")
        peer_log.error("ring damaged", instance=self.instance, error=str(error), peer=self.peer)
        self.region.shut()
        self._hang_up()

    def _hang_up(self) -> None:
        """End the connection; its descriptor is closed with the object."""
        try:
            self.control.shutdown(socket.SHUT_RDWR)
        except OSError as error:
            log.debug("peer has hung up", error=str(error))

    def _answered(self, payload: bytes) -> None:
        """End the call that a response is for; any other one is dropped."""
        response = records.Response.parse(payload)
        call = self.in_flight.pop(response.id, None) if response else None
        if call is not None and response is not None:
            taken = call.answer(response.status, response.data)
        else:
            taken = response is not None and self._owner.stray(self, response)
        if not taken:
            self.count_dropped()


def say(connection: socket.socket, text: str) -> None:
    """Send a line to a peer that may be gone."""
    try:
        connection.send(text.encode())
    except OSError as error:
        log.debug("peer does not hear", error=str(error))
