# SPDX-License-Identifier: Apache-2.0
"""Calls that functions make of other functions, through their own rings."""

from __future__ import annotations

import re
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

from aetherless_common.errors import AetherlessError
from aetherless_common.tracing import NOBODY, Span
from aetherless_ipc import codec, errors, records
from aetherless_ipc.calls import Asked, ToldCall
from aetherless_ipc.records import Request, Status
from aetherless_ipc.sparing import peer_log

if TYPE_CHECKING:
    from aetherless_ipc.attachment import Attachment
    from aetherless_ipc.broker import Broker
    from aetherless_ipc.calls import Call
    from aetherless_ipc.channel import Channel
    from aetherless_ipc.invoking import Invoker

# Of one attachment: what it asks for, and what it has not read of the answers, is kept here.
MOST_UNDER_WAY = 1024
MOST_RINGS_UNDER_WAY = 4
FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05
# What a function says is its trace goes into headers of other services' requests.
TRACE = re.compile(r"[0-9a-f]{2}-[0-9a-f]{32}-[0-9a-f]{16}-[0-9a-f]{2}", re.ASCII)
STATUSES = {
    "CALL_NOT_ALLOWED": Status.NOT_ALLOWED,
    "CHANNEL_NOT_FOUND": Status.NO_FUNCTION,
    "HANDLER_FAILED": Status.FAILED,
    "METHOD_NOT_FOUND": Status.NO_METHOD,
    "INVOCATION_TIMEOUT": Status.DEADLINE_PASSED,
    "RING_FULL": Status.NO_ROOM,
}


class FunctionCalls:
    """Makes the calls that functions ask for, and takes the answers back to them.

    Args:
        broker: has the channels.
        invoker: makes the calls.
    """

    def __init__(self, broker: Broker, invoker: Invoker) -> None:
        self._broker = broker
        self._invoker = invoker
        self._lock = threading.Lock()

    def take(self, attachment: Attachment, payload: bytes) -> None:
        """Make the call of a record; one that is shorter than its head says is passed over."""
        request = Request.parse(payload)
        if request is None:
            return
        try:
            self._make(attachment, request)
        except AetherlessError as error:
            self._answer(attachment, request, error, b"")

    def _make(self, attachment: Attachment, request: Request) -> None:
        """Make a call, if the function may."""
        name, _, method = request.method.partition(b"/")
        function = name.decode(errors="replace")
        caller = self._broker.look_up(attachment.channel_id)
        caller.delivery.stats.count("calls_made")
        if function not in caller.declared.may_call:
            raise errors.call_not_allowed(attachment.channel_id, function)
        channel = self._invoker.channel(function)
        method = self._invoker.method(method)
        if not self._has_begun(attachment, request):
            raise errors.ring_full(function, len(request.data))
        timeout, span = _time(request, channel), _span(request)
        asked = Asked(function, method, request.data, timeout, patient=True, span=span)
        call = ToldCall(asked, partial(self._told, attachment, request))
        attachment.made[call.id] = call
        try:
            self._invoker.check_length(channel, call)
            self._invoker.begin(channel, call)
        except AetherlessError as error:
            call.fail(error)

    def _has_begun(self, attachment: Attachment, request: Request) -> bool:
        """Count the bytes of a call that is to be made; False when that is one too many."""
        length, limit = len(request.data), _most_bytes(attachment)
        with self._lock:
            full = len(attachment.made) >= MOST_UNDER_WAY
            if full or attachment.made_bytes + length > limit:
                return False
            attachment.made_bytes += length
        return True

    def _told(self, attachment: Attachment, request: Request, call: Call) -> None:
        """Take a call's end back to the function that made it."""
        attachment.made.pop(call.id, None)
        with self._lock:
            attachment.made_bytes -= len(request.data)
        if not call.is_cancelled:
            self._answer(attachment, request, call.error, call.result)

    def _answer(
        self, attachment: Attachment, request: Request, error: AetherlessError | None, data: bytes
    ) -> None:
        """Answer a function's call."""
        status = Status.RESULT if error is None else _status(error)
        if error is not None:
            data = error.metadata.get("handlerMessage", error.message).encode(errors="replace")
        largest = attachment.layout.largest_payload - records.RESPONSE_HEAD
        if len(data) > largest:
            status, data = Status.NOT_DELIVERED, f"a result of {len(data)} bytes".encode()
        payload = records.response(request.id, status, data)
        if attachment.owed or not attachment.respond(payload):
            self._owe(attachment, request, payload)

    def _owe(self, attachment: Attachment, request: Request, payload: bytes) -> None:
        """Keep an answer until there is room; one too many is dropped, as its function's fault."""
        until_ns = time.time_ns() + round(codec.LONGEST_TIMEOUT_S * 1e9)
        until_ns = min(request.deadline_ns or until_ns, until_ns)
        with self._lock:
            owed, limit = attachment.owed, _most_bytes(attachment)
            is_first = not owed
            kept = sum(len(each) for _, each in owed) if len(owed) < MOST_UNDER_WAY else limit
            if is_first or kept + len(payload) <= limit:
                owed.append((until_ns, payload))
            else:
                attachment.count_dropped()
        if is_first:
            self._settle(attachment, FIRST_PAUSE_S)

    def _settle(self, attachment: Attachment, pause: float) -> None:
        """Put in what is owed; while there is no room, try again up to the callers' deadlines."""
        while True:
            with self._lock:
                if not attachment.owed:
                    return
                until_ns, payload = attachment.owed[0]
                if not attachment.respond(payload):
                    if time.time_ns() <= until_ns:
                        break
                    peer_log.warning("no room for an answer", instance=attachment.instance)
                attachment.owed.popleft()
        again = partial(self._settle, attachment, min(2 * pause, LONGEST_PAUSE_S))
        self._broker.rings.after(pause, again)


def _status(error: AetherlessError) -> Status:
    """Return what a function is told of an error."""
    return STATUSES.get(error.reason, Status.NOT_DELIVERED)


def _time(request: Request, channel: Channel) -> float:
    """Return the seconds that a function's call may take."""
    limit = channel.declared.timeout_ms / 1000
    if not request.deadline_ns:
        return limit
    return min(limit, (request.deadline_ns - time.time_ns()) / 1e9)


def _span(request: Request) -> Span:
    """Return the span that a function's call is a part of."""
    trace = request.trace.decode("ascii", errors="replace")
    return Span((("traceparent", trace),)) if TRACE.fullmatch(trace) else NOBODY


def _most_bytes(attachment: Attachment) -> int:
    """Return how much of one attachment's calls, and of their answers, is kept."""
    return MOST_RINGS_UNDER_WAY * attachment.layout.ring_bytes
