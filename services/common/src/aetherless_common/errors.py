# SPDX-License-Identifier: Apache-2.0
"""Typed errors: one class per canonical gRPC code, told apart by ``reason``.

This module imports no gRPC, so that any program may import it cheaply; ``status`` puts these errors
on the wire and takes them off. Each service's ``errors.py`` holds one constructor function per
reason of its ``ErrorReason`` enum; the reasons that every service knows are constructed here.
"""
# ruff: noqa: N818  # the classes have the names of the canonical codes

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping


@dataclass(frozen=True, slots=True)
class Violation:
    """One wrong field of a request or a configuration: where it is, and what is wrong with it."""

    field: str
    problem: str


class AetherlessError(Exception):
    """What went wrong, in fields that a program can act on.

    Args:
        reason: the wire string of the service's ``ErrorReason``, without the prefix.
        message: one sentence for people; each of its changing parts is in ``metadata`` too.
        metadata: the changing parts; keys are lowerCamelCase, values become strings.
        domain: who means this reason, ``<service>.aetherless``; the server that answers with the
            error fills it in when it is empty.
        violations: further wrong fields, sent as google.rpc.BadRequest.
        remedy: what to do about it; travels as metadata key ``remedy``.
    """

    code: ClassVar[str]
    exit_status: ClassVar[int]

    def __init__(
        self,
        reason: str,
        message: str,
        metadata: Mapping[str, object] | None = None,
        *,
        domain: str = "",
        violations: Iterable[Violation] = (),
        remedy: str = "",
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.domain = domain
        self.metadata = {key: str(value) for key, value in (metadata or {}).items()}
        self.violations = tuple(violations)
        if remedy:
            self.metadata["remedy"] = remedy

    @property
    def remedy(self) -> str:
        """What to do about it, or the empty string."""
        return self.metadata.get("remedy", "")

    def __str__(self) -> str:
        return f"{self.reason}: {self.message}"


class InvalidArgument(AetherlessError):
    """The request can't be right, whatever the state of the system is: fix the request."""

    code = "INVALID_ARGUMENT"
    exit_status = 3


class NotFound(AetherlessError):
    """The thing that the request names does not exist."""

    code = "NOT_FOUND"
    exit_status = 4


class AlreadyExists(AetherlessError):
    """The name is taken by something else."""

    code = "ALREADY_EXISTS"
    exit_status = 5


class FailedPrecondition(AetherlessError):
    """The state, or the host, has to change before the request can succeed."""

    code = "FAILED_PRECONDITION"
    exit_status = 6


class Aborted(AetherlessError):
    """Somebody else was at work: read again, then retry the whole step."""

    code = "ABORTED"
    exit_status = 7


class ResourceExhausted(AetherlessError):
    """A limit was reached: back off."""

    code = "RESOURCE_EXHAUSTED"
    exit_status = 8


class OutOfRange(AetherlessError):
    """The position that the request names is not kept any more: start from the current one."""

    code = "OUT_OF_RANGE"
    exit_status = 9


class Unavailable(AetherlessError):
    """Somebody that is needed does not answer: retry as it is."""

    code = "UNAVAILABLE"
    exit_status = 10


class DataLoss(AetherlessError):
    """Stored data is damaged: a retry won't help."""

    code = "DATA_LOSS"
    exit_status = 11


class DeadlineExceeded(AetherlessError):
    """It did not happen in the time that was given or promised."""

    code = "DEADLINE_EXCEEDED"
    exit_status = 12


class Internal(AetherlessError):
    """A fault of this software; the service's log has the details."""

    code = "INTERNAL"
    exit_status = 1


CLASSES: Mapping[str, type[AetherlessError]] = {
    cls.code: cls for cls in AetherlessError.__subclasses__()
}


def internal(message: str = "a fault inside the service; its log has the details") -> Internal:
    """Return the error for a fault of this software."""
    return Internal("INTERNAL", message)


def invalid_argument(field: str, problem: str, *others: Violation) -> InvalidArgument:
    """Return the error for a wrong request: ``field`` first, further ones as violations."""
    return InvalidArgument(
        "INVALID_ARGUMENT",
        f"{field} {problem}",
        {"field": field, "problem": problem},
        violations=(Violation(field, problem), *others),
    )


def watcher_too_slow(queue_limit: int) -> ResourceExhausted:
    """Return the error that ends a watch whose reader lags by more than ``queue_limit`` items."""
    return ResourceExhausted(
        "WATCHER_TOO_SLOW",
        f"more than {queue_limit} events wait for this watcher",
        {"queueLimit": queue_limit},
        remedy="list again, then watch from the revision of the list",
    )


def peer_unreachable(service: str, cause: str = "does not answer") -> Unavailable:
    """Return the error for a service that does not answer."""
    return Unavailable(
        "PEER_UNREACHABLE",
        f"the {service} service is unreachable: {cause}",
        {"service": service},
        remedy="see whether it runs: aetherctl up starts the services",
    )


def peer_timeout(service: str, method: str) -> DeadlineExceeded:
    """Return the error for a service that did not answer before the call's deadline."""
    return DeadlineExceeded(
        "PEER_TIMEOUT",
        f"the {service} service did not answer {method} in time",
        {"service": service, "method": method},
    )
