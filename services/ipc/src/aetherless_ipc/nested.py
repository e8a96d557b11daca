# SPDX-License-Identifier: Apache-2.0
"""Calls that functions make of other functions, through their own rings."""

from __future__ import annotations

import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from aetherless_common.errors import AetherlessError
from aetherless_common.tracing import NOBODY, Span
from aetherless_ipc import errors, records
from aetherless_ipc.calls import ToldCall
from aetherless_ipc.records import Request, Status

if TYPE_CHECKING:
    from aetherless_ipc.attachment import Attachment
    from aetherless_ipc.broker import Broker
    from aetherless_ipc.calls import Call
    from aetherless_ipc.channel import Channel
    from aetherless_ipc.invoking import Invoker

log = structlog.get_logger()
MOST_UNDER_WAY = 1024
FIRST_PAUSE_S = 0.001
LONGEST_PAUSE_S = 0.05
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
        function, _, method = request.method.decode(errors="replace").partition("/")
        caller = self._broker.get(attachment.channel_id)
        caller.delivery.stats.count("calls_made")
        if function not in caller.declared.may_call:
            raise errors.call_not_allowed(attachment.channel_id, function)
        channel = self._invoker.channel(function)
        if len(attachment.made) >= MOST_UNDER_WAY:
            raise errors.ring_full(function, len(request.data))
        call = ToldCall(
            function,
            method.encode(),
            request.data,
            _time(request, channel),
            patient=True,
            span=_span(request),
            told=partial(self._told, attachment, request),
        )
        attachment.made[call.id] = call
        try:
            self._invoker.check_length(channel, call)
            self._invoker.begin(channel, call)
        except AetherlessError as error:
            call.fail(error)

    def _told(self, attachment: Attachment, request: Request, call: Call) -> None:
        """Take a call's end back to the function that made it."""
        attachment.made.pop(call.id, None)
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
        self._respond(attachment, request, records.response(request.id, status, data), 0.0)

    def _respond(
        self, attachment: Attachment, request: Request, payload: bytes, pause: float
    ) -> None:
        """Put an answer in; while there is no room, try again up to the caller's deadline."""
        if attachment.respond(payload):
            return
        if request.deadline_ns and time.time_ns() > request.deadline_ns:
            log.warning("no room for an answer", instance=attachment.instance)
            return
        pause = min(2 * pause or FIRST_PAUSE_S, LONGEST_PAUSE_S)
        again = partial(self._respond, attachment, request, payload, pause)
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
    return Span((("traceparent", trace),)) if trace else NOBODY
