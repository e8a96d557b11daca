# SPDX-License-Identifier: Apache-2.0
"""One constructor per reason of the registry's ``ErrorReason``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common.errors import (
    Aborted,
    FailedPrecondition,
    Internal,
    InvalidArgument,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    Violation,
    internal,
    invalid_argument,
    peer_timeout,
    peer_unreachable,
    watcher_too_slow,
)

if TYPE_CHECKING:
    from collections.abc import Sequence

__all__ = [
    "DOMAIN",
    "config_invalid",
    "etag_mismatch",
    "events_compacted",
    "events_unreadable",
    "function_in_use",
    "function_not_found",
    "internal",
    "invalid_argument",
    "invalid_state_transition",
    "operation_in_progress",
    "peer_timeout",
    "peer_unreachable",
    "port_in_use",
    "revision_compacted",
    "revision_not_found",
    "too_many_checks",
    "watcher_too_slow",
]

DOMAIN = "registry.aetherless"


def config_invalid(violations: Sequence[Violation]) -> InvalidArgument:
    """Return the error for declarations that are wrong; all of their faults at once."""
    first, count = violations[0], len(violations)
    more = f" (and {count - 1} more)" if count > 1 else ""
    return InvalidArgument(
        "CONFIG_INVALID",
        f"{first.field} {first.problem}{more}",
        {"field": first.field, "problem": first.problem},
        violations=violations,
        remedy="correct the declaration",
    )


def function_not_found(function: str) -> NotFound:
    """Return the error for a function that is not declared."""
    return NotFound(
        "FUNCTION_NOT_FOUND",
        f"there is no function {function}",
        {"function": function},
        remedy="see aetherctl list",
    )


def function_in_use(function: str, pipeline: str) -> FailedPrecondition:
    """Return the error for a function that would go, or lose its channel, under a pipeline."""
    return FailedPrecondition(
        "FUNCTION_IN_USE",
        f"the pipeline {pipeline} needs the function {function} with ipc: true",
        {"function": function, "pipeline": pipeline},
        remedy="delete the pipeline first: deploy --prune a file without it",
    )


def port_in_use(port: int, function: str) -> FailedPrecondition:
    """Return the error for a trigger port that another function has."""
    return FailedPrecondition(
        "PORT_IN_USE",
        f"port {port} belongs to the function {function}",
        {"port": port, "function": function},
        remedy="choose another trigger_port, or delete that function",
    )


def invalid_state_transition(function: str, origin: str, target: str) -> FailedPrecondition:
    """Return the error for a move that the state machine does not have."""
    return FailedPrecondition(
        "INVALID_STATE_TRANSITION",
        f"the function {function} can't go from {origin} to {target}",
        {"function": function, "from": origin, "to": target},
        remedy="see aetherctl describe for what it waits for",
    )


def etag_mismatch(kind: str, name: str, expected: str, actual: str) -> Aborted:
    """Return the error for a "function" or a "pipeline" that changed since it was read."""
    return Aborted(
        "ETAG_MISMATCH",
        f"the {kind} {name} changed: its etag is {actual}, not {expected}",
        {"kind": kind, "name": name, "expected": expected, "actual": actual},
        remedy="read it again, then retry",
    )


def revision_compacted(compact_revision: int) -> OutOfRange:
    """Return the error for a watch that asks for changes which are not kept any more."""
    return OutOfRange(
        "REVISION_COMPACTED",
        f"changes up to revision {compact_revision} are not kept any more",
        {"compactRevision": compact_revision},
        remedy="list again, then watch from the revision of the list",
    )


def events_compacted(compacted: int) -> OutOfRange:
    """Return the error for a watch that asks for events which are not kept any more."""
    return OutOfRange(
        "REVISION_COMPACTED",
        f"events up to {compacted} are not all kept any more",
        {"compactRevision": compacted},
        remedy="list the events, then watch from the list's last_sequence + 1",
    )


def events_unreadable(cause: str) -> Internal:
    """Return the error for a log of events that can't be read."""
    return Internal("INTERNAL", f"the log of events can't be read: {cause}", {"cause": cause})


def revision_not_found(function: str, revision: int, kept: Sequence[int]) -> NotFound:
    """Return the error for a revision that can't be gone back to; ``revision`` 0 means any."""
    what = f"revision {revision}" if revision else "earlier revision"
    numbers = ",".join(map(str, kept))
    return NotFound(
        "REVISION_NOT_FOUND",
        f"the function {function} has no {what}; kept: {numbers or 'none'}",
        {"function": function, "revision": revision, "kept": numbers},
        remedy="choose one that aetherctl describe shows as kept, or deploy the wanted files again",
    )


def operation_in_progress(function: str) -> Aborted:
    """Return the error for a function that something else is being done to."""
    return Aborted(
        "OPERATION_IN_PROGRESS",
        f"the function {function} is being deployed or deleted",
        {"function": function},
        remedy="wait until it is done, then retry",
    )


def too_many_checks(limit: int) -> ResourceExhausted:
    """Return the error for a check beside as many as may go on at a time."""
    return ResourceExhausted(
        "TOO_MANY_CHECKS",
        f"{limit} checks go on already",
        {"limit": limit},
        remedy="wait until one of them has ended, then check again",
    )
