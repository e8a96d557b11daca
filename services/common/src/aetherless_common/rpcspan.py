# SPDX-License-Identifier: Apache-2.0
"""The two sides of a call as spans, with the attributes that OpenTelemetry names for gRPC."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc

from aetherless_common import tracing
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Iterator

# Our own calls; health checks and reflection are recorded on neither side.
OURS = "/aetherless."


def begin_call(method: str) -> tracing.Span:
    """Begin the client's side of a call.

    Args:
        method: gRPC's path of the RPC, ``/package.Service/Method``.
    """
    if not method.startswith(OURS):
        return tracing.NOBODY
    return tracing.begin_call(method[1:], _attributes(method))


@contextmanager
def recording_end(span: tracing.Span) -> Iterator[None]:
    """Record the block's end as that of a call, answered or failed."""
    try:
        yield
    except BaseException as error:
        failed(span, error)
        raise
    answered(span)


def begin_served(method: str, context: grpc.ServicerContext) -> tracing.Span:
    """Begin the server's side of a call, as a part of what its client sent."""
    caller = tracing.sent(context.invocation_metadata())
    if not tracing.recording():
        return caller
    return tracing.begin(method[1:], "server", _attributes(method), parent=caller)


def answered(span: tracing.Span) -> None:
    """End a call that was answered."""
    _end(span, "OK")


def failed(span: tracing.Span, error: BaseException) -> None:
    """End a call that failed; the status is an error's on both sides."""
    span.fail(error)
    _end(span, error.code if isinstance(error, AetherlessError) else "UNKNOWN")


def _attributes(method: str) -> tracing.Attributes:
    """Return what is known of a call before it is made."""
    return {"rpc.system.name": "grpc", "rpc.method": method[1:]}


def _end(span: tracing.Span, code: str) -> None:
    """End a call with a canonical code; its number is for those that read the older attribute."""
    if not tracing.recording():
        return
    number: int = grpc.StatusCode[code].value[0]
    span.set({"rpc.response.status_code": code, "rpc.grpc.status_code": number})
    span.end()
