# SPDX-License-Identifier: Apache-2.0
"""A process's one attachment, shared by all of its threads that serve and that call.

One thread at a time reads: it leads. It hands each record to whom it is for, and another thread
leads when it has what it wanted. So a handler that calls another function reads its answer itself,
and no thread of the library's own is needed.
"""

from __future__ import annotations

import contextlib
import itertools
import logging
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Any

from aetherless_client import calls
from aetherless_client.attachment import attach
from aetherless_client.calls import Request, Response, current
from aetherless_client.channel import FOREVER, ROOM_SLICE_S
from aetherless_client.errors import (
    AttachRefusedError,
    ClientError,
    InvocationTimeoutError,
    LostCallError,
    NoRoomError,
    PeerGoneError,
)
from aetherless_client.fastpath import Step, fast_path
from aetherless_client.lead import Lead
from aetherless_client.pending import Pending, limits
from aetherless_client.work import Work
from aetherless_ring import RingCorruptError, RingFullError
from aetherless_ring.layout import RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer as Buffer

    from aetherless_client.channel import Channel
    from aetherless_client.fastpath import FastPath, Handlers
    from aetherless_client.stages import Ready

log = logging.getLogger(__name__)
# Records between looks at the control socket while there is always another record.
BUSY_RECORDS = 64
# Seconds for which one ring is looked at before the others are, while spinning.
GLANCE_S = 1e-6
# How long to try before looking whether it is over.
LONGEST_ATTACH_S = 2.0
# Refusals that are over when another process is.
PASSING = ("CHANNEL_ATTACHED", "CHANNEL_CLOSED")
_RUN_BYTES = 8
# As plain integers, which compare in a fifth of the time.
REQUEST, RESPONSE = int(RecordType.REQUEST), int(RecordType.RESPONSE)


class Client:
    """The attachment to one side socket.

    Args:
        path: the side socket.
    """

    def __init__(self, path: str) -> None:
        self.failure: Exception | None = None
        self._path = path
        self._channel: Channel | None = None
        self._lead = Lead()
        self._lock = threading.Lock()
        self._work: deque[Work] = deque()
        self._at_work = 0
        self._pending: dict[int, Pending] = {}
        self._ids = itertools.count(1)
        self._records = 0
        self._from_edge = False

    def next_work(
        self,
        spin: float = 0.0,
        over: threading.Event | None = None,
        handlers: Handlers | None = None,
    ) -> Work | None:
        """Return the next request; attaches as often as needed. None when it is over.

        Args:
            spin: seconds to look again and again before sleeping.
            over: set, then ``kick``, to have no more.
            handlers: to handle here what may go the fast path.

        Raises:
            AttachRefusedError, InvalidRegionError: as ``attach``; in every thread that serves.
        """
        while over is None or not over.is_set():
            if self._work:
                with contextlib.suppress(IndexError):
                    return self._work.popleft()
            if self.failure is not None:
                raise self.failure
            if self._lead.take():
                try:
                    work = self._lead_to_work(spin, over, handlers)
                finally:
                    if self._lead.is_mine():  # the fast path may have lent it
                        self._lead.leave()
                if work is not None:
                    return work
            else:
                self._lead.wait(lambda: self._has_news(over), FOREVER)
        self._lead.hand_on()
        return None

    def _has_news(self, over: threading.Event | None) -> bool:
        return bool(self._work or self.failure or (over is not None and over.is_set()))

    def kick(self) -> None:
        """Have every thread look whether it is over."""
        channel = self._channel
        if channel is not None:
            channel.ring_self()
        self._lead.rouse()

    def finish(self, work: Work) -> None:
        """Let go of a request's records; its answer is out."""
        for held in work.held:
            held.let_go()
        with self._lock:
            self._at_work -= 1

    def call(
        self, function: str, data: Buffer, *, timeout: float | None = None, method: str = ""
    ) -> bytes:
        """Call a function; see ``aetherless_client.call``."""
        until, deadline_ns = limits(timeout)
        name = f"{function}/{method}" if method else function
        number, pending = self._submit(name, data, until, deadline_ns)
        try:
            self._until(pending.is_done, self._read, until)
        finally:
            self._pending.pop(number, None)
        return pending.result()

    def glance(self) -> None:
        """Hear the service, if no other thread does: for one that waits for room.

        Raises:
            PeerGoneError: the attachment has ended.
        """
        channel = self._channel
        if channel is None:
            return
        if self._lead.is_mine():
            channel.hear()
        elif self._lead.take():
            with self._lead:
                channel.hear()

    def abandon(self) -> None:
        """Let go of everything in a child process: the attachment is its parent's."""
        channel, self._channel = self._channel, None
        if channel is not None:
            channel.close_inherited()

    def _until(
        self, is_done: Callable[[], bool], look: Callable[[Channel], None], until: float
    ) -> None:
        """Lead, or wait for who does, until something is done or a time of the monotonic clock."""
        try:
            while not is_done() and time.monotonic() < until:
                if self._lead.is_mine():
                    self._read_until(is_done, look, until)
                elif self._lead.take():
                    with self._lead:
                        self._read_until(is_done, look, until)
                else:
                    self._lead.wait(is_done, until)
        finally:
            self._lead.hand_on()

    def _read_until(
        self, is_done: Callable[[], bool], look: Callable[[Channel], None], until: float
    ) -> None:
        while not is_done() and (left := until - time.monotonic()) > 0:
            channel = self._channel or self._attach(left)
            try:
                look(channel)
            except (PeerGoneError, RingCorruptError) as error:
                self._end(channel, error)

    def _lead_to_work(
        self, spin: float, over: threading.Event | None, handlers: Handlers | None
    ) -> Work | None:
        """Read until there is a request to handle; None when it is in the queue, or over."""
        while not self._work and not (over is not None and over.is_set()):
            try:
                channel = self._channel or self._attach(LONGEST_ATTACH_S)
            except (FileNotFoundError, ConnectionError, TimeoutError):
                continue
            except AttachRefusedError:
                if self.failure is not None:
                    raise
                continue
            if channel.is_leaving and self._is_idle():
                self._end(channel, PeerGoneError("the service asked to let go"))
                continue
            try:
                work = self._serve(channel, spin, handlers)
            except (PeerGoneError, RingCorruptError) as error:
                self._end(channel, error)
            else:
                if work is not None:
                    return work
        return None

    def _serve(self, channel: Channel, spin: float, handlers: Handlers | None) -> Work | None:
        """Have requests go the fast path; return one that can't, or can't any more."""
        fast = fast_path(channel, handlers, self._lead, self._begin_work)
        ended = fast.serve(spin) if fast else Step.LOOK
        if fast is None or ended == Step.LOOK:
            return self._work_of(channel, spin)
        if ended != Step.HEAR:
            try:
                return self._take_over(channel, fast, ended)
            finally:
                del ended  # a handler's exception has this frame, and would be kept by it
        channel.hear()
        channel.stages.sweep()
        return None

    def _take_over(self, channel: Channel, fast: FastPath, ended: Any) -> Work:
        try:
            return Work(channel, *fast.take_over(ended))
        finally:
            fast.forget()

    def _begin_work(self) -> None:
        with self._lock:
            self._at_work += 1

    def _work_of(self, channel: Channel, spin: float) -> Work | None:
        """Look at every ring for a request; sleeps when there is none."""
        until = 0.0
        while True:
            # In turn: neither the channel nor the edges keep the other waiting.
            taken = channel.take() if self._from_edge else None
            if taken is None and not channel.is_leaving:
                # The spinning is done here, without the interpreter's lock.
                ready = channel.stages.take(GLANCE_S if until else 0.0)
                if ready is not None:
                    return self._take_ready(channel, ready)
            self._from_edge = False
            taken = taken or channel.take()
            if taken is not None:
                return self._sort(channel, *taken)
            if not spin:
                break
            now = time.monotonic()
            until = until or now + spin
            if now >= until:
                break
        if channel.doze() and (channel.is_leaving or channel.stages.doze()):
            channel.sleep(ROOM_SLICE_S if channel.is_leaving else FOREVER)
        return None

    def _take_ready(self, channel: Channel, ready: Ready) -> Work:
        self._from_edge = True
        self._look_up(channel)
        self._begin_work()
        return Work(channel, *ready)

    def _read(self, channel: Channel) -> None:
        """Take what is on the channel, for one that waits for an answer; sleeps when nothing is."""
        taken = channel.take()
        if taken is not None:
            work = self._sort(channel, *taken)
            if work is not None:
                self._work.append(work)
                self._lead.rouse()
        elif channel.doze():
            channel.sleep(ROOM_SLICE_S)

    def _look_up(self, channel: Channel) -> None:
        """Hear the service now and then although there is always another record."""
        self._records += 1
        if self._records >= BUSY_RECORDS:
            self._records = 0
            channel.hear()

    def _sort(self, channel: Channel, kind: int, payload: bytes) -> Work | None:
        """Return a request to handle; do what other records ask for."""
        self._look_up(channel)
        if kind == REQUEST:
            request = Request.parse(payload)
            return None if request is None else self._take_on(channel, request)
        if kind == RESPONSE:
            self._answer(payload)
        elif kind == RecordType.PING:
            channel.publish(payload, RecordType.PONG)
        elif kind == RecordType.SHUTDOWN:
            channel.is_leaving = True
        elif kind == calls.OVER and len(payload) == _RUN_BYTES:
            channel.hear()  # of the stage, should it be new
            channel.stages.over(int.from_bytes(payload, "little"))
        return None

    def _take_on(self, channel: Channel, request: Request) -> Work:
        stage = None
        if "/" in request.method:
            stage = channel.stages.find(request.method)
            if stage is None:
                channel.hear()
                stage = channel.stages.find(request.method)
        self._begin_work()
        return Work(channel, request, stage, ())

    def _answer(self, payload: bytes) -> None:
        """Give an answer to the call that waits for it."""
        response = Response.parse(payload)
        pending = self._pending.get(response.id) if response else None
        if pending is not None:
            pending.response = response
            self._lead.rouse()

    def _submit(
        self, function: str, data: Buffer, until: float, deadline_ns: int
    ) -> tuple[int, Pending]:
        """Put a call in; again when the attachment ended before it was in."""
        request = current.get(None)
        trace = request.trace if request else b""
        while True:
            channel = self._attached(function, until)
            number, pending = next(self._ids), Pending(function, channel)
            record = calls.request(number, deadline_ns, 1, trace, function.encode(), data)
            self._pending[number] = pending
            try:
                left = None if until == FOREVER else max(0.0, until - time.monotonic())
                channel.publish(record, calls.CALL, left, meanwhile=self.glance)
            except PeerGoneError:
                del self._pending[number]
                self._read_on(channel, until)
            except BaseException as error:
                del self._pending[number]
                if isinstance(error, RingFullError):
                    raise NoRoomError(function) from error
                raise
            else:
                return number, pending

    def _attached(self, function: str, until: float) -> Channel:
        """Return the channel; attaches if need be."""
        channel = self._channel
        if channel is not None:
            return channel
        try:
            self._until(lambda: self._channel is not None, lambda _: None, until)
        except (FileNotFoundError, ConnectionError, TimeoutError) as error:
            raise InvocationTimeoutError(function, "nobody attached this function") from error
        channel = self._channel
        if channel is None:
            raise InvocationTimeoutError(function, "nobody attached this function")
        return channel

    def _read_on(self, channel: Channel, until: float) -> None:
        """Let the end of a channel be noticed."""
        self._until(lambda: self._channel is not channel, self._read, until)

    def _attach(self, left: float) -> Channel:
        try:
            self._channel = attach(self._path, timeout=None if left == FOREVER else left)
        except (ClientError, ValueError) as error:
            if getattr(error, "reason", "") not in PASSING:
                self.failure = error
                self._lead.rouse()
            raise
        self._lead.rouse()
        return self._channel

    def _is_idle(self) -> bool:
        """Whether all requests that were taken are answered, and all calls."""
        return not (self._work or self._at_work or self._pending)

    def _end(self, channel: Channel, error: Exception) -> None:
        """Let go of an attachment; its calls will have no answer."""
        if not isinstance(error, PeerGoneError):
            log.error("the ring is damaged: attaching anew: %s", error)
        self._channel = None
        with self._lock:
            kept = [work for work in self._work if work.channel is not channel]
            self._at_work -= len(self._work) - len(kept)
            self._work = deque(kept)
        channel.close()
        for pending in list(self._pending.values()):
            if pending.channel is channel:
                pending.error = LostCallError(pending.function)
        self._lead.rouse()
