# SPDX-License-Identifier: Apache-2.0
"""Requests and responses as bytes of records; docs/ipc.md has the tables."""

from __future__ import annotations

import struct
import time
from contextvars import ContextVar
from enum import IntEnum
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Sequence

    from _typeshed import ReadableBuffer as Buffer

_REQUEST = struct.Struct("<QQIHH")
_RESPONSE = struct.Struct("<QII")
_PART = struct.Struct("<I")
_new = tuple.__new__
REQUEST_HEAD = _REQUEST.size
RESPONSE_HEAD = _RESPONSE.size
# Records of docs/ipc.md beside the ring's own types: a call of another function; a run's end.
CALL = 6
OVER = 7


class Status(IntEnum):
    """How a call ended."""

    RESULT = 0
    FAILED = 1  # the handler failed; the data is a message
    NO_METHOD = 2
    DEADLINE_PASSED = 3
    NOT_ALLOWED = 4  # may_call does not name the function
    NO_FUNCTION = 5
    NOT_DELIVERED = 6  # the data is a message
    NO_ROOM = 7
    PASSED_ON = 8  # by the first stage of a pipeline to those that read of it
    EDGE_DAMAGED = 9  # the data is the edge's name


class Request(NamedTuple):
    """One call of the function, or one record that reached it as a stage of a pipeline.

    Args:
        id: unique while the channel lives; for a stage the run's, the same along the pipeline.
        deadline_ns: nanoseconds of CLOCK_REALTIME; 0 for none.
        attempt: 1, or more when it was delivered before and not answered.
        trace: the W3C ``traceparent``, or nothing.
        method: the name that was called, or nothing.
        data: what the caller sent.
        inputs: from how many stages the data comes.
    """

    id: int
    deadline_ns: int
    attempt: int
    trace: bytes
    method: str
    data: bytes
    inputs: int = 1

    @classmethod
    def parse(cls, payload: bytes) -> Request | None:
        """Return the request of a record's payload; None when it is malformed."""
        if len(payload) < REQUEST_HEAD:
            return None
        number, deadline, attempt, trace_bytes, method_bytes = _REQUEST.unpack_from(payload)
        method_at = REQUEST_HEAD + trace_bytes
        data_at = method_at + method_bytes
        if data_at > len(payload):
            return None
        method = payload[method_at:data_at].decode(errors="replace") if method_bytes else ""
        trace = payload[REQUEST_HEAD:method_at] if trace_bytes else b""
        # As cls(...), in half the time: this is on every record's way.
        return _new(cls, (number, deadline, attempt, trace, method, payload[data_at:], 1))

    @property
    def parts(self) -> tuple[bytes, ...]:
        """What each input sent, in the order of the pipeline's ``from``; one for one input."""
        return split(self.data) if self.inputs > 1 else (self.data,)

    def time_left(self) -> float | None:
        """Return the seconds to the deadline, negative when it has passed; None for none."""
        return (self.deadline_ns - time.time_ns()) / 1e9 if self.deadline_ns else None


current: ContextVar[Request] = ContextVar("aetherless_client.request")


def current_request() -> Request:
    """Return the request that the running handler answers; LookupError outside of one."""
    return current.get()


class Response(NamedTuple):
    """How a call ended: ``data`` is the result, or a message."""

    id: int
    status: int
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> Response | None:
        """Return the response of a record's payload; None when it is malformed."""
        if len(payload) < RESPONSE_HEAD:
            return None
        number, status, _ = _RESPONSE.unpack_from(payload)
        return cls(number, status, payload[RESPONSE_HEAD:])


def request(
    number: int, deadline_ns: int, attempt: int, trace: bytes, method: bytes, data: Buffer
) -> bytes:
    """Return the payload of a request's record, or of a call's."""
    head = _REQUEST.pack(number, deadline_ns, attempt, len(trace), len(method))
    return b"".join((head, trace, method, data))


def response(request_id: int, status: Status, data: bytes = b"", stage: int = 0) -> bytes:
    """Return the payload of a response's record; ``stage`` is the number docs/ipc.md speaks of."""
    return _RESPONSE.pack(request_id, status, stage) + data


def join(parts: Sequence[bytes]) -> bytes:
    """Return what several inputs sent as the data of one request."""
    pieces = [_PART.pack(len(parts))]
    for part in parts:
        pieces += (_PART.pack(len(part)), part)
    return b"".join(pieces)


def split(data: bytes) -> tuple[bytes, ...]:
    """Undo ``join``.

    Raises:
        ValueError: the data is not what it makes.
    """
    parts, place = [], _PART.size
    try:
        for _ in range(*_PART.unpack_from(data)):
            (length,) = _PART.unpack_from(data, place)
            place += _PART.size
            parts.append(data[place : place + length])
            place += length
    except struct.error as error:
        raise ValueError("the parts are cut short") from error
    if place != len(data):
        raise ValueError("the parts do not fill the data")
    return tuple(parts)
