# SPDX-License-Identifier: Apache-2.0
"""The one place where errors become google.rpc.Status, and come back from it."""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeVar

import grpc
from google.protobuf.message import Message
from google.rpc import code_pb2, error_details_pb2, status_pb2
from grpc_status import rpc_status

from aetherless_common.errors import (
    CLASSES,
    AetherlessError,
    Internal,
    Violation,
    peer_timeout,
    peer_unreachable,
)

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf import any_pb2

M = TypeVar("M", bound=Message)
LONGEST_TEXT = 4096  # characters of a message, or of one value
MOST_VIOLATIONS = 16

# A server that runs no handler for the call says so with these codes and no details.
UNREACHABLE = (
    grpc.StatusCode.UNAVAILABLE,
    grpc.StatusCode.CANCELLED,
    grpc.StatusCode.RESOURCE_EXHAUSTED,
)


def to_status(error: AetherlessError, domain: str) -> status_pb2.Status:
    """Return the error as google.rpc.Status with one ErrorInfo; ``domain`` fills an empty one.

    It travels in gRPC's metadata, which is bounded, so texts and violations are.
    """
    status = status_pb2.Status(code=code_pb2.Code.Value(error.code), message=_cut(error.message))
    info = error_details_pb2.ErrorInfo(
        reason=error.reason,
        domain=error.domain or domain,
        metadata={key: _cut(value) for key, value in error.metadata.items()},
    )
    status.details.add().Pack(info)
    if error.violations:
        bad = error_details_pb2.BadRequest()
        for violation in error.violations[:MOST_VIOLATIONS]:
            bad.field_violations.add(
                field=_cut(violation.field, 256), description=_cut(violation.problem, 1024)
            )
        status.details.add().Pack(bad)
    return status


def from_status(status: status_pb2.Status) -> AetherlessError:
    """Return the error that a status stands for.

    A status with no ErrorInfo, or with a code that no class of ours has, is an Internal error of
    whoever sent it.
    """
    info = _first(status.details, error_details_pb2.ErrorInfo())
    bad = _first(status.details, error_details_pb2.BadRequest())
    cls = CLASSES.get(code_pb2.Code.Name(status.code))
    if info is None or cls is None:
        return Internal("INTERNAL", status.message or f"untyped status {status.code}")
    fields = bad.field_violations if bad else ()
    return cls(
        info.reason,
        status.message,
        info.metadata,
        domain=info.domain,
        violations=[Violation(field.field, field.description) for field in fields],
    )


def abort(context: grpc.ServicerContext, error: AetherlessError, domain: str) -> None:
    """End a call with the error. Only the server's interceptor calls this.

    Raises:
        Exception: always; it is how gRPC leaves a handler.
    """
    context.abort_with_status(rpc_status.to_status(to_status(error, domain)))


def from_rpc_error(error: grpc.RpcError, service: str, method: str) -> AetherlessError:
    """Return the typed error for a failed call of ``method`` at ``service``.

    What the service answered keeps its reason; what gRPC itself says becomes PEER_UNREACHABLE,
    PEER_TIMEOUT or INTERNAL.
    """
    status = rpc_status.from_call(error)
    if status is not None:
        return from_status(status)
    code, details = error.code(), error.details() or ""
    if code in UNREACHABLE:
        return peer_unreachable(service, details or code.name)
    if code is grpc.StatusCode.DEADLINE_EXCEEDED:
        return peer_timeout(service, method)
    return Internal(
        "INTERNAL",
        f"the {service} service answered {method} with {code.name}: {details}",
        {"service": service, "method": method},
    )


def _cut(text: str, longest: int = LONGEST_TEXT) -> str:
    """Return a text's beginning when it is too long to travel."""
    return text if len(text) <= longest else f"{text[: longest - 1]}…"


def _first(details: Iterable[any_pb2.Any], wanted: M) -> M | None:
    """Unpack the first detail of the type of ``wanted``."""
    for detail in details:
        if detail.Unpack(wanted):
            return wanted
    return None
