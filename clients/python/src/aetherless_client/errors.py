# SPDX-License-Identifier: Apache-2.0
"""What a client refuses, each with the contract's word for it in ``reason``.

What the ring refuses keeps its own types (``aetherless_ring.RingFullError`` and the others).
"""

from __future__ import annotations

from aetherless_client.calls import Status


class ClientError(Exception):
    """Anything that attaching to a channel, or using one, refuses."""

    reason = "INTERNAL"


class NoChannelError(ClientError):
    """The environment names no channel: the program doesn't run as a function that has one."""

    reason = "CHANNEL_NOT_FOUND"


class AttachRefusedError(ClientError):
    """The service did not hand the channel out.

    Args:
        reason: PEER_NOT_ALLOWED, CHANNEL_ATTACHED or CHANNEL_CLOSED.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRegionError(ClientError):
    """What was handed out is no sealed region of this version."""

    reason = "REGION_INVALID"


class PeerGoneError(ClientError):
    """The service ended the attachment; attach anew."""

    reason = "PEER_GONE"


class CallError(ClientError):
    """A call of another function brought no result.

    Args:
        function: what was called.
        message: what the other side said, or nothing.
    """

    def __init__(self, function: str, message: str = "") -> None:
        super().__init__(f"{function}: {message or self.__doc__}")
        self.function = function
        self.message = message


class HandlerFailedError(CallError):
    """The called handler failed."""

    reason = "HANDLER_FAILED"


class MethodNotFoundError(CallError):
    """The called handler has no such method."""

    reason = "METHOD_NOT_FOUND"


class InvocationTimeoutError(CallError, TimeoutError):
    """The time was over before the answer was there."""

    reason = "INVOCATION_TIMEOUT"


class CallNotAllowedError(CallError):
    """The ``may_call`` of this function does not name the other."""

    reason = "CALL_NOT_ALLOWED"


class FunctionNotFoundError(CallError):
    """There is no such function, or it has no channel."""

    reason = "FUNCTION_NOT_FOUND"


class NotDeliveredError(CallError):
    """The call did not reach the function, or its answer was lost."""

    reason = "NOT_DELIVERED"


class NoRoomError(CallError):
    """The called function has no room for more calls now."""

    reason = "RING_FULL"


class LostCallError(CallError, PeerGoneError):
    """The attachment ended while the call was under way; whether it was done is not known."""

    reason = "PEER_GONE"


_OF_STATUS: dict[int, type[CallError]] = {
    Status.FAILED: HandlerFailedError,
    Status.NO_METHOD: MethodNotFoundError,
    Status.DEADLINE_PASSED: InvocationTimeoutError,
    Status.NOT_ALLOWED: CallNotAllowedError,
    Status.NO_FUNCTION: FunctionNotFoundError,
    Status.NOT_DELIVERED: NotDeliveredError,
    Status.NO_ROOM: NoRoomError,
}


def call_error(function: str, status: int, data: bytes) -> CallError:
    """Return the error that stands for a response's status."""
    kind = _OF_STATUS.get(status)
    message = data.decode(errors="replace")
    return kind(function, message) if kind else CallError(function, f"status {status}: {message}")
