# SPDX-License-Identifier: Apache-2.0
"""Spans of what this process does, joined with other processes' by the W3C trace context.

Off unless the OTEL_* variables ask for traces. Then nothing of OpenTelemetry is imported, every
span is a passive one, and what a caller sent as its context is handed on as it came. On, ``otel``
records the spans.
"""

from __future__ import annotations

import os
from contextlib import contextmanager
from contextvars import ContextVar
from typing import TYPE_CHECKING, Literal, Protocol, TypeAlias

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Mapping

Kind: TypeAlias = Literal["internal", "server", "client"]
Attributes: TypeAlias = "Mapping[str, str | bool | int | float]"
# What goes with a call: the W3C headers by name.
Carrier: TypeAlias = "tuple[tuple[str, str], ...]"

HEADERS = ("traceparent", "tracestate")
# How long the end of a process may wait for its last spans to be sent, in seconds.
FLUSH_S = 2.0
_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


class Span:
    """A span that this process does not record: nobody's, or the one that a caller sent.

    Args:
        carrier: the context to hand on; empty for nobody's.
    """

    __slots__ = ("carrier",)

    def __init__(self, carrier: Carrier = ()) -> None:
        self.carrier = carrier

    @property
    def trace_id(self) -> str:
        """The trace, as 32 hexadecimal digits; empty for nobody's."""
        return self._part(1)

    @property
    def span_id(self) -> str:
        """The span, as 16 hexadecimal digits; empty for nobody's."""
        return self._part(2)

    @property
    def sampled(self) -> bool:
        """Whether the trace is recorded somewhere, as the context's flags say."""
        return self._part(3)[-1:] in tuple("13579bdf")

    def set(self, attributes: Attributes) -> None:
        """Add attributes, named as OpenTelemetry's semantic conventions name them."""

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note something that happened just now."""

    def fail(self, error: BaseException) -> None:
        """Mark it as failed, with the fields of a typed error as attributes."""

    def end(self, at_ns: int | None = None) -> None:
        """End it, now or at a time in nanoseconds since the epoch; once is enough."""

    def _part(self, index: int) -> str:
        """Return a field of the ``traceparent``."""
        fields = dict(self.carrier).get("traceparent", "").split("-")
        return fields[index] if len(fields) > index else ""


class Recorder(Protocol):
    """What records spans when tracing is on; ``otel.Recorder``."""

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, parent: Span, at_ns: int | None
    ) -> Span:
        """Begin a span within ``parent``, or of a trace of its own when that is nobody's."""

    def stop(self, timeout: float) -> None:
        """Send what is left; give up after ``timeout`` seconds."""


NOBODY = Span()
_current: ContextVar[Span] = ContextVar("aetherless_span", default=NOBODY)
_recorder: Recorder | None = None


def wanted(environment: Mapping[str, str] | None = None) -> bool:
    """Tell whether the OTEL_* variables of an environment, by default ours, ask for traces."""
    found = os.environ if environment is None else environment
    if found.get("OTEL_SDK_DISABLED", "").strip().lower() == "true":
        return False
    if exporter := found.get("OTEL_TRACES_EXPORTER", "").strip():
        return exporter != "none"
    return any(found.get(name) for name in _ENDPOINTS)


def start(service: str, tell: Callable[[str], None]) -> None:
    """Record spans from now on when the OTEL_* variables ask for it.

    Args:
        service: names this process, unless OTEL_SERVICE_NAME does.
        tell: told, in one line each, that spans can't be sent, and that they can be again; also
            of a variable's value that is not known, which leaves tracing off.
    """
    global _recorder  # noqa: PLW0603  # one process, one recorder; ``stop`` takes it away
    if not wanted():
        return
    from aetherless_common import otel  # noqa: PLC0415  # costs 0.2 s, so only when it is asked for

    try:
        _recorder = otel.Recorder(service, tell)
    except otel.UnknownSettingError as error:
        tell(str(error))


def stop(timeout: float = FLUSH_S) -> None:
    """Send what is left, for at most ``timeout`` seconds, and record no more."""
    global _recorder
    recorder, _recorder = _recorder, None
    if recorder is not None:
        recorder.stop(timeout)


def recording() -> bool:
    """Tell whether this process records spans."""
    return _recorder is not None


def current() -> Span:
    """Return the span that goes on in this thread, or nobody's."""
    return _current.get()


def make_current(span: Span) -> None:
    """Let a span be the one that goes on in this thread, until another one is made so."""
    _current.set(span)


@contextmanager
def use(span: Span) -> Iterator[Span]:
    """Let a span be the one that goes on in this thread; does not end it."""
    before = _current.get()
    _current.set(span)
    try:
        yield span
    finally:
        _current.set(before)


def begin(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: Span | None = None,
    at_ns: int | None = None,
) -> Span:
    """Begin a span, which the caller ends; it does not become the current one.

    Args:
        name: says what kind of work it is; one of few.
        kind: ``server`` and ``client`` for the two sides of a call.
        attributes: named as OpenTelemetry's semantic conventions name them.
        parent: the span it is a part of, by default the current one; nobody's begins a trace.
        at_ns: when it began, in nanoseconds since the epoch, if not now.
    """
    parent = _current.get() if parent is None else parent
    if _recorder is None:
        return _passive(parent)
    return _recorder.begin(name, kind, attributes or {}, parent, at_ns)


@contextmanager
def span(
    name: str,
    kind: Kind = "internal",
    attributes: Attributes | None = None,
    *,
    parent: Span | None = None,
) -> Iterator[Span]:
    """Record the block as a span, the current one in it; arguments as of ``begin``."""
    begun = begin(name, kind, attributes, parent=parent)
    with use(begun):
        try:
            yield begun
        except BaseException as error:
            begun.fail(error)
            raise
        finally:
            begun.end()


def begin_call(name: str, attributes: Attributes) -> Span:
    """Begin the client's side of a call, within the current span.

    A call that belongs to nothing, such as one of a loop that observes, is not recorded, and asks
    the server, by the context's flag, not to record it either.
    """
    if _recorder is None:
        return _passive(_current.get())
    if not _current.get().carrier:
        return Span((("traceparent", f"00-{os.urandom(16).hex()}-{os.urandom(8).hex()}-00"),))
    return begin(name, "client", attributes)


def sent(metadata: Iterable[tuple[str, str | bytes]]) -> Span:
    """Return the span that a caller sent with its call, or nobody's."""
    carrier = tuple((key, value) for key, value in metadata if key in HEADERS)
    return Span(carrier) if carrier else NOBODY  # type: ignore[arg-type]  # text, by their names


def _passive(parent: Span) -> Span:
    """Return a span that hands the parent's context on and records nothing."""
    return Span(parent.carrier) if parent.carrier else NOBODY
