# SPDX-License-Identifier: Apache-2.0
"""Requests and responses as bytes of records; docs/ipc.md has the tables."""

from __future__ import annotations

import struct
import time
from dataclasses import dataclass
from enum import IntEnum

_REQUEST = struct.Struct("<QQIHH")
_RESPONSE = struct.Struct("<QII")
RESPONSE_HEAD = _RESPONSE.size


class Status(IntEnum):
    """How a call ended."""

    RESULT = 0
    FAILED = 1  # the handler failed; the data is a message
    NO_METHOD = 2
    DEADLINE_PASSED = 3


@dataclass(frozen=True, slots=True)
class Request:
    """One call of the function.

    Args:
        id: unique while the channel lives.
        deadline_ns: nanoseconds of CLOCK_REALTIME; 0 for none.
        attempt: 1, or more when it was delivered before and not answered.
        trace: the W3C ``traceparent``, or nothing.
        method: the name that was called, or nothing.
        data: what the caller sent.
    """

    id: int
    deadline_ns: int
    attempt: int
    trace: bytes
    method: str
    data: bytes

    @classmethod
    def parse(cls, payload: bytes) -> Request | None:
        """Return the request of a record's payload; None when it is malformed."""
        if len(payload) < _REQUEST.size:
            return None
        number, deadline, attempt, trace_bytes, method_bytes = _REQUEST.unpack_from(payload)
        method_at = _REQUEST.size + trace_bytes
        data_at = method_at + method_bytes
        if data_at > len(payload):
            return None
        method = payload[method_at:data_at].decode(errors="replace")
        trace = payload[_REQUEST.size : method_at]
        return cls(number, deadline, attempt, trace, method, payload[data_at:])

    def time_left(self) -> float | None:
        """Return the seconds to the deadline, negative when it has passed; None for none."""
        return (self.deadline_ns - time.time_ns()) / 1e9 if self.deadline_ns else None


def response(request_id: int, status: Status, data: bytes = b"") -> bytes:
    """Return the payload of a response's record."""
    return _RESPONSE.pack(request_id, status, 0) + data
