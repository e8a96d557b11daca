# SPDX-License-Identifier: Apache-2.0
"""Records spans with OpenTelemetry's SDK. Only ``tracing`` imports this, and only when it is on.

The sampler, limits, batches, the resource and the exporter are the SDK's own, set by the standard
OTEL_* variables.
"""

from __future__ import annotations

import logging
import os
import sys
import threading
from importlib import metadata
from typing import TYPE_CHECKING

from opentelemetry import trace
from opentelemetry.sdk.resources import OTELResourceDetector, Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import (
    BatchSpanProcessor,
    ConsoleSpanExporter,
    SpanExporter,
    SpanExportResult,
)
from opentelemetry.trace.propagation.tracecontext import TraceContextTextMapPropagator

from aetherless_common.errors import AetherlessError
from aetherless_common.tracing import Carrier, Span

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from opentelemetry.sdk.trace import ReadableSpan

    from aetherless_common.tracing import Attributes, Kind

_KINDS = {
    "internal": trace.SpanKind.INTERNAL,
    "server": trace.SpanKind.SERVER,
    "client": trace.SpanKind.CLIENT,
}
# A handler's own words, which may be long and are the user's; logs and errors have them.
_LEFT_OUT = frozenset({"log"})
# An export that is given up ends within this time, in seconds; if not, it ends with the process.
_ABORT_S = 0.2
_W3C = TraceContextTextMapPropagator()


class UnknownSettingError(Exception):
    """An OTEL_* variable has a value that stands for nothing that is here."""

    def __init__(self, variable: str, value: str, known: str) -> None:
        super().__init__(f"no traces: {variable} is {value!r}, known are {known}")


class RecordedSpan(Span):
    """A span of the SDK.

    Args:
        span: the SDK's.
    """

    __slots__ = ("otel",)

    def __init__(self, span: trace.Span) -> None:
        super().__init__(_carrier(span))
        self.otel = span

    def set(self, attributes: Attributes) -> None:
        """Add attributes, unless it has ended."""
        if self.otel.is_recording():
            self.otel.set_attributes(attributes)

    def event(self, name: str, attributes: Attributes | None = None) -> None:
        """Note something that happened just now."""
        self.otel.add_event(name, attributes)

    def fail(self, error: BaseException) -> None:
        """Set status and attributes; only what is no typed error brings its stack."""
        if not self.otel.is_recording():
            return
        if not isinstance(error, AetherlessError):
            self.otel.record_exception(error)
            self.otel.set_attribute("error.type", type(error).__qualname__)
            self.otel.set_status(trace.Status(trace.StatusCode.ERROR, str(error)))
            return
        fields = {key: value for key, value in error.metadata.items() if key not in _LEFT_OUT}
        self.otel.set_attribute("error.type", error.reason)
        self.otel.set_attributes({f"aetherless.error.{key}": fields[key] for key in fields})
        if error.domain:
            self.otel.set_attribute("aetherless.error.domain", error.domain)
        self.otel.set_status(trace.Status(trace.StatusCode.ERROR, error.message))

    def end(self, at_ns: int | None = None) -> None:
        """End it unless it has ended."""
        if self.otel.is_recording():
            self.otel.end(at_ns)


class Recorder:
    """Records this process's spans and has them sent.

    Args:
        service: as of ``tracing.start``.
        tell: as of ``tracing.start``.

    Raises:
        UnknownSettingError: a variable asks for an exporter or a protocol that is not here.
    """

    def __init__(self, service: str, tell: Callable[[str], None]) -> None:
        self._failed = threading.Event()
        words = _Words(self._failed)
        self._exporters = [Announcing(each, words, tell) for each in _exporters()]
        self._provider = TracerProvider(resource=_resource(service), shutdown_on_exit=False)
        for exporter in self._exporters:
            self._provider.add_span_processor(BatchSpanProcessor(exporter))
        self._tracer = self._provider.get_tracer(
            "aetherless", metadata.version("aetherless-common")
        )
        if words.setting:
            tell(f"a variable of OpenTelemetry is not as it should be ({words.setting})")

    def begin(
        self, name: str, kind: Kind, attributes: Attributes, parent: Span, at_ns: int | None
    ) -> Span:
        """Begin a span."""
        if isinstance(parent, RecordedSpan):
            context = trace.set_span_in_context(parent.otel)
        else:
            context = _W3C.extract(dict(parent.carrier))
        return RecordedSpan(
            self._tracer.start_span(name, context, _KINDS[kind], attributes, start_time=at_ns)
        )

    def stop(self, timeout: float) -> None:
        """Send what is left. The first failure ends it: there is no time for another try."""
        self._failed.clear()
        flushing = threading.Thread(target=self._flush, name="traces-flush", daemon=True)
        flushing.start()
        self._failed.wait(timeout)
        for exporter in self._exporters:
            exporter.give_up(timeout)
        flushing.join(_ABORT_S)

    def _flush(self) -> None:
        """Send what is left, then end ``stop``'s wait."""
        self._provider.shutdown()
        self._failed.set()


class Announcing(SpanExporter):
    """Tells once that spans can't be sent, and once that they can be again.

    Args:
        exporter: the one that sends.
        words: what it logged last.
        tell: told in one line each.
    """

    def __init__(self, exporter: SpanExporter, words: _Words, tell: Callable[[str], None]) -> None:
        self._exporter = exporter
        self._words = words
        self._tell = tell
        self._lock = threading.Lock()
        self._failing = False
        self._idle = threading.Event()
        self._idle.set()
        self._ended = False

    def export(self, spans: Sequence[ReadableSpan]) -> SpanExportResult:
        """Send spans, and tell when that begins to fail or to work."""
        self._idle.clear()
        try:
            result = self._exporter.export(spans)
        except Exception as error:
            self._note(failed=True, cause=f"{type(error).__name__}: {error}")
            raise
        finally:
            self._idle.set()
        self._note(failed=result is not SpanExportResult.SUCCESS)
        return result

    def shutdown(self) -> None:
        """End the exporter."""
        with self._lock:
            ended, self._ended = self._ended, True
        if not ended:
            self._exporter.shutdown()

    def force_flush(self, timeout_millis: int = 30000) -> bool:
        """Nothing is kept here."""
        return self._exporter.force_flush(timeout_millis)

    def give_up(self, timeout: float) -> None:
        """End an export under way, and tell that its spans are lost."""
        if not self._idle.is_set():
            self._note(failed=True, cause=f"not sent within {timeout:g} s")
        self.shutdown()

    def _note(self, *, failed: bool, cause: str = "") -> None:
        """Tell of a change."""
        with self._lock:
            changed, self._failing = failed != self._failing, failed
        if changed and failed:
            why = self._words.last or cause or "they could not be sent"
            self._tell(f"traces are lost ({why})")
        elif changed:
            self._tell("traces are sent again")
        if not failed:
            self._words.last = ""


class _Words(logging.Handler):
    """Keeps what OpenTelemetry logs from the log, which it would fill, and remembers the last.

    Args:
        failed: set whenever a try to send has failed.
    """

    def __init__(self, failed: threading.Event) -> None:
        super().__init__(logging.WARNING)
        self._failed = failed
        self.last = ""
        self.setting = ""
        library = logging.getLogger("opentelemetry")
        library.handlers[:] = [self]
        library.propagate = False

    def emit(self, record: logging.LogRecord) -> None:
        """Remember a line: of an exporter, or of what reads the variables."""
        if "exporter" not in record.name:
            self.setting = record.getMessage()
            return
        self.last = record.getMessage()
        self._failed.set()


def _carrier(span: trace.Span) -> Carrier:
    """Return the W3C headers of a span."""
    headers: dict[str, str] = {}
    _W3C.inject(headers, trace.set_span_in_context(span))
    return tuple(headers.items())


def _version() -> str:
    """Return the version of this software."""
    return metadata.version("aetherless-common")


def _resource(service: str) -> Resource:
    """Return what this process is; OTEL_RESOURCE_ATTRIBUTES and OTEL_SERVICE_NAME win."""
    ours: dict[str, str | int] = {
        "service.name": f"aetherless-{service}",
        "service.namespace": "aetherless",
        "service.version": _version(),
        "process.pid": os.getpid(),
        "aetherless.service": service,
    }
    return Resource.create(ours).merge(OTELResourceDetector().detect())


def _exporters() -> list[SpanExporter]:
    """Return the exporters that OTEL_TRACES_EXPORTER names."""
    names = os.environ.get("OTEL_TRACES_EXPORTER", "").strip() or "otlp"
    return [_exporter(name.strip()) for name in names.split(",")]


def _exporter(name: str) -> SpanExporter:
    """Return one exporter; the console's lines go where they disturb no result."""
    if name == "otlp":
        return _otlp()
    if name == "console":
        return ConsoleSpanExporter(out=sys.stderr)
    raise UnknownSettingError("OTEL_TRACES_EXPORTER", name, "otlp, console, none")


def _otlp() -> SpanExporter:
    """Return the OTLP exporter of the protocol that is asked for."""
    # Imported here since each brings a stack of its own.
    variables = ("OTEL_EXPORTER_OTLP_TRACES_PROTOCOL", "OTEL_EXPORTER_OTLP_PROTOCOL")
    variable = next((each for each in variables if os.environ.get(each)), variables[1])
    protocol = os.environ.get(variable, "").strip() or "grpc"
    if protocol == "grpc":
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as OverGrpc,
        )

        return OverGrpc()
    if protocol == "http/protobuf":
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import (  # noqa: PLC0415
            OTLPSpanExporter as OverHttp,
        )

        return OverHttp()
    raise UnknownSettingError(variable, protocol, "grpc, http/protobuf")
