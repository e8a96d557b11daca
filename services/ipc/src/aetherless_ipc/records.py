# SPDX-License-Identifier: Apache-2.0
"""Calls as payloads of records; docs/ipc.md has the tables. What a peer sends is not trusted."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from enum import IntEnum
from typing import NamedTuple

CALL = 6  # the type of a record by which a function calls another one
OVER = 7  # the type of a record by which a stage hears that a run is over
_REQUEST = struct.Struct("<QQIHH")
_RESPONSE = struct.Struct("<QII")
REQUEST_HEAD = _REQUEST.size
RESPONSE_HEAD = _RESPONSE.size
LONGEST_NAME = 0xFFFF


class Status(IntEnum):
    """How a call ended."""

    RESULT = 0
    FAILED = 1  # the handler failed; the data is a message
    NO_METHOD = 2
    DEADLINE_PASSED = 3
    NOT_ALLOWED = 4  # this and what follows: only to functions that call others
    NO_FUNCTION = 5
    NOT_DELIVERED = 6  # the data is a message
    NO_ROOM = 7
    PASSED_ON = 8  # only of stages: by the first one to those that read of it
    EDGE_DAMAGED = 9  # the data is the edge's name


@dataclass(frozen=True, slots=True)
class Request:
    """What a function asks of another one.

    Args:
        id: chosen by the caller.
        deadline_ns: nanoseconds of CLOCK_REALTIME; 0 for none.
        trace: the W3C ``traceparent``, or nothing.
        method: what is called.
        data: what it is given.
    """

    id: int
    deadline_ns: int
    trace: bytes
    method: bytes
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> Request | None:
        """Return the request in a payload; None when it is shorter than its head says."""
        if len(payload) < REQUEST_HEAD:
            return None
        number, deadline, _, trace_bytes, method_bytes = _REQUEST.unpack_from(payload)
        method_at = REQUEST_HEAD + trace_bytes
        data_at = method_at + method_bytes
        if data_at > len(payload):
            return None
        trace, method = payload[REQUEST_HEAD:method_at], payload[method_at:data_at]
        return cls(number, deadline, trace, method, payload[data_at:])


class Response(NamedTuple):
    """What a peer answered.

    Args:
        id: the request's, as the peer says.
        status: how the call ended; a number that has no meaning is possible.
        stage: of a pipeline, counted from 1; 0 when it is none's.
        data: the result, or a message.
    """

    id: int
    status: int
    stage: int
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> Response | None:
        """Return the response in a payload; None when it is too short to be one."""
        if len(payload) < RESPONSE_HEAD:
            return None
        number, status, stage = _RESPONSE.unpack_from(payload)
        return cls(number, status, stage, payload[RESPONSE_HEAD:])


def request(
    number: int, deadline_ns: int, attempt: int, trace: bytes, method: bytes, data: bytes
) -> bytes:
    """Return the payload of a request; ``attempt`` counts from 1."""
    head = _REQUEST.pack(number, deadline_ns, attempt, len(trace), len(method))
    return b"".join((head, trace, method, data))


def response(number: int, status: Status, data: bytes = b"") -> bytes:
    """Return the payload of a response."""
    return _RESPONSE.pack(number, status, 0) + data
