# SPDX-License-Identifier: Apache-2.0
"""From a request for a call to a call that is on its way, for callers of all kinds."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common import callcontext, tracing
from aetherless_common.errors import invalid_argument
from aetherless_ipc import codec, errors, records
from aetherless_ipc.calls import Asked, AwaitedCall, Call, ToldCall

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.ipc.v1 import ipc_service_pb2 as pb
    from aetherless_common.tracing import Span
    from aetherless_ipc.broker import Broker
    from aetherless_ipc.channel import Channel

# Kept back of the caller's deadline, so that it hears of it from us.
SHARE_FOR_THE_ANSWER = 0.05


class Invoker:
    """Makes calls.

    Args:
        broker: has the channels.
    """

    def __init__(self, broker: Broker) -> None:
        self._broker = broker

    def channel(self, function: str) -> Channel:
        """Return a function's channel, if there is an instance to call.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
            FailedPrecondition: CHANNEL_NOT_READY.
        """
        channel = self._broker.look_up(function)
        if not channel.declared.instance:
            raise errors.channel_not_ready(function)
        return channel

    def awaited(self, request: pb.InvokeRequest) -> tuple[Channel, AwaitedCall]:
        """Return the call that a request asks for, to be made by this thread.

        Raises:
            AetherlessError: INVALID_ARGUMENT, PAYLOAD_TOO_LARGE, and as ``channel``.
        """
        channel, asked = self._read(request, tracing.current())
        call = AwaitedCall(asked)
        self.check_length(channel, call)
        return channel, call

    def told(
        self, request: pb.InvokeRequest, span: Span, told: Callable[[Call], None]
    ) -> tuple[Channel, ToldCall]:
        """Return the call that a request asks for, whose end is told.

        Raises:
            AetherlessError: as ``awaited``.
        """
        channel, asked = self._read(request, span)
        call = ToldCall(asked, told)
        self.check_length(channel, call)
        return channel, call

    @staticmethod
    def method(name: bytes) -> bytes:
        """Return the name of a handler's method, which has no slash.

        With one it would be a stage's: the handler's result went on to the next stages, whom the
        caller may not be allowed to call.

        Raises:
            InvalidArgument: INVALID_ARGUMENT.
        """
        if b"/" in name:
            raise invalid_argument("method", "must have no slash")
        if len(name) > records.LONGEST_NAME:
            raise invalid_argument("method", f"has more than {records.LONGEST_NAME} bytes")
        return name

    @staticmethod
    def check_length(channel: Channel, call: Call) -> None:
        """Refuse a call that no record can hold.

        Raises:
            InvalidArgument: PAYLOAD_TOO_LARGE.
        """
        limit = channel.layout.largest_payload - (call.length - len(call.data))
        if len(call.data) > limit:
            raise errors.payload_too_large(call.function, len(call.data), max(limit, 0))

    def begin(self, channel: Channel, call: ToldCall) -> None:
        """Make a call that ends at its deadline by itself.

        Raises:
            AetherlessError: as ``Delivery.submit``.
        """
        self._broker.rings.watch(call)
        channel.delivery.submit(call)

    @staticmethod
    def finish(channel: Channel, call: AwaitedCall) -> None:
        """Make a call and wait for its end.

        Raises:
            AetherlessError: how it ended, if not by a result.
        """
        channel.delivery.carry_out(call)
        if call.error is not None:
            raise call.error

    def _read(self, request: pb.InvokeRequest, span: Span) -> tuple[Channel, Asked]:
        """Return the channel of a request, and what is asked for."""
        if not request.function.startswith("functions/"):
            raise invalid_argument("function", 'must be "functions/{function}"')
        channel = self.channel(request.function[len("functions/") :])
        method = self.method(request.method.encode())
        timeout = self.seconds(request, channel.declared.timeout_ms)
        patient = request.wait_for_room
        return channel, Asked(channel.channel_id, method, request.data, timeout, patient, span)

    @staticmethod
    def seconds(request: pb.InvokeRequest, otherwise_ms: int) -> float:
        """Return how long what is asked for may take; its own time, or the other one.

        Raises:
            InvalidArgument: INVALID_ARGUMENT.
        """
        timeout = codec.seconds("timeout", request.timeout) if request.HasField("timeout") else 0
        timeout = timeout or otherwise_ms / 1000
        left = callcontext.remaining()
        if left is not None and left < timeout:
            timeout = left - min(callcontext.MARGIN, left * SHARE_FOR_THE_ANSWER)
        return timeout
