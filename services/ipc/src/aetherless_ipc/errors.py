# SPDX-License-Identifier: Apache-2.0
"""One constructor per reason of ``aetherless.ipc.v1.ErrorReason``; the rest are in common."""

from __future__ import annotations

import errno
import os

from aetherless_common.errors import (
    AlreadyExists,
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    ResourceExhausted,
    Unavailable,
)

# What is told of a call that was delivered more than once: a process that lives gets it once.
DIED = "its process ended before it answered: see its log and its events"


def channel_not_found(channel: str) -> NotFound:
    """Return the error for a channel that does not exist."""
    return NotFound("CHANNEL_NOT_FOUND", f"no channel {channel}", {"channel": channel})


def channel_exists(channel: str) -> AlreadyExists:
    """Return the error for a channel that exists with other properties."""
    return AlreadyExists(
        "CHANNEL_EXISTS",
        f"channel {channel} exists with another function or size",
        {"channel": channel},
        remedy="delete it first, or choose another id",
    )


def region_invalid(channel: str, cause: OSError) -> FailedPrecondition:
    """Return the error for a region, or its side socket, that the kernel refused."""
    number = cause.errno or 0
    return FailedPrecondition(
        "REGION_INVALID",
        f"channel {channel} can't be made: {os.strerror(number)}",
        {"channel": channel, "errno": errno.errorcode.get(number, number)},
    )


def invocation_timeout(kind: str, name: str, timeout_ms: int, attempts: int) -> DeadlineExceeded:
    """Return the error for a call that was not answered in time; ``kind`` says of what."""
    delivered = {0: "not delivered", 1: "delivered once"}.get(
        attempts, f"delivered {attempts} times"
    )
    return DeadlineExceeded(
        "INVOCATION_TIMEOUT",
        f"{kind} {name} did not answer within {timeout_ms} ms; {delivered}",
        {"kind": kind, "name": name, "timeoutMs": timeout_ms, "attempts": attempts},
        remedy=DIED if attempts > 1 else "",
    )


def ring_full(function: str, length: int) -> ResourceExhausted:
    """Return the error for a call of so many bytes that the ring has no room for now."""
    return ResourceExhausted(
        "RING_FULL",
        f"the ring to function {function} has no room for {length} bytes",
        {"function": function, "bytes": length},
        remedy="call again later, or wait for room",
    )


def payload_too_large(function: str, length: int, limit: int) -> InvalidArgument:
    """Return the error for data that no record of the ring can hold."""
    return InvalidArgument(
        "PAYLOAD_TOO_LARGE",
        f"{length} bytes for function {function}, of at most {limit}",
        {"function": function, "bytes": length, "limit": limit},
        remedy="send less at once, or raise shm_buffer_size",
    )


def handler_failed(function: str, message: str) -> FailedPrecondition:
    """Return the error for a handler that answered that it failed."""
    return FailedPrecondition(
        "HANDLER_FAILED",
        f"the handler of function {function} failed: {message}",
        {"function": function, "handlerMessage": message},
    )


def method_not_found(function: str, method: str) -> NotFound:
    """Return the error for a method that the handler does not have."""
    return NotFound(
        "METHOD_NOT_FOUND",
        f"the handler of function {function} has no method {method!r}",
        {"function": function, "method": method},
    )


def ring_corrupt(function: str, instance: str, attempts: int) -> DataLoss:
    """Return the error for a call that was in a ring that is damaged; ``attempts`` deliveries."""
    return DataLoss(
        "RING_CORRUPT",
        f"instance {instance} of function {function} damaged its ring; delivery {attempts}",
        {"function": function, "instance": instance, "attempts": attempts},
    )


def peer_gone(function: str) -> Unavailable:
    """Return the error for a call whose channel ended meanwhile."""
    return Unavailable(
        "PEER_GONE",
        f"the channel of function {function} ended during the call",
        {"function": function},
    )


def call_not_allowed(caller: str, function: str) -> FailedPrecondition:
    """Return the error for a function that calls one that it may not."""
    return FailedPrecondition(
        "CALL_NOT_ALLOWED",
        f"function {caller} may not call function {function}",
        {"caller": caller, "function": function},
        remedy="name it in may_call",
    )


def calls_in_flight(channel: str, instance: str, calls: int) -> FailedPrecondition:
    """Return the error for a detach whose patience ended before the calls did."""
    return FailedPrecondition(
        "CALLS_IN_FLIGHT",
        f"instance {instance} of channel {channel} has calls to answer: {calls}",
        {"channel": channel, "instance": instance, "calls": calls},
        remedy="try again when they are answered",
    )


def channel_not_ready(function: str) -> FailedPrecondition:
    """Return the error for a function that has no instance to call yet."""
    return FailedPrecondition(
        "CHANNEL_NOT_READY",
        f"function {function} has no instance to call",
        {"function": function},
        remedy="wait until it is deployed",
    )


def pipeline_not_found(pipeline: str) -> NotFound:
    """Return the error for a pipeline that does not exist."""
    return NotFound("PIPELINE_NOT_FOUND", f"no pipeline {pipeline}", {"pipeline": pipeline})


def pipeline_exists(pipeline: str) -> AlreadyExists:
    """Return the error for a pipeline that exists with other properties."""
    return AlreadyExists(
        "PIPELINE_EXISTS",
        f"pipeline {pipeline} exists with other stages or properties",
        {"pipeline": pipeline},
        remedy="delete it first, or choose another id",
    )


def stage_failed(pipeline: str, stage: str, message: str) -> FailedPrecondition:
    """Return the error for a run whose stage answered that it failed."""
    return FailedPrecondition(
        "STAGE_FAILED",
        f"stage {stage} of pipeline {pipeline} failed: {message}",
        {"pipeline": pipeline, "stage": stage, "handlerMessage": message},
    )


def stage_lost(pipeline: str, stage: str) -> Unavailable:
    """Return the error for a run that was lost with the process of a stage."""
    return Unavailable(
        "STAGE_LOST",
        f"stage {stage} of pipeline {pipeline} ended with the run's record",
        {"pipeline": pipeline, "stage": stage},
        remedy="run it again if it may be worked on twice",
    )


def edge_corrupt(pipeline: str, edge: str) -> DataLoss:
    """Return the error for a run that was under way when an edge was found damaged."""
    return DataLoss(
        "RING_CORRUPT",
        f"the edge {edge} of pipeline {pipeline} was damaged",
        {"pipeline": pipeline, "edge": edge},
        remedy="run it again; the edge was made anew",
    )
