# SPDX-License-Identifier: Apache-2.0
"""A receiver of OTLP traces on loopback, over gRPC or HTTP, that keeps what it was sent."""

from __future__ import annotations

import gzip
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any

import grpc
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2 as messages
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2_grpc as services
from opentelemetry.proto.trace.v1 import trace_pb2

from .processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

GRPC, HTTP = "grpc", "http/protobuf"
ERROR = trace_pb2.Status.STATUS_CODE_ERROR
SERVER, CLIENT, INTERNAL = (
    trace_pb2.Span.SPAN_KIND_SERVER,
    trace_pb2.Span.SPAN_KIND_CLIENT,
    trace_pb2.Span.SPAN_KIND_INTERNAL,
)


@dataclass(frozen=True)
class Received:
    """One span as it came over the wire; times in nanoseconds since the epoch."""

    name: str
    trace: str
    id: str
    parent: str
    kind: int
    start_ns: int
    end_ns: int
    attributes: dict[str, Any]
    status: int
    status_message: str
    resource: dict[str, Any]
    events: tuple[str, ...]

    @property
    def service(self) -> str:
        """The process that recorded it."""
        return str(self.resource["service.name"])

    @property
    def ms(self) -> float:
        """How long it took, in milliseconds."""
        return (self.end_ns - self.start_ns) / 1e6


@dataclass
class Collector:
    """What was received so far.

    Arguments:
        protocol: GRPC or HTTP.
        endpoint: Where it listens.
        refusing: Whether an HTTP one answers that it takes nothing.
    """

    protocol: str
    endpoint: str = ""
    refusing: bool = False
    _spans: list[Received] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """The standard variables that have a process send its spans here, and soon."""
        return {
            "OTEL_EXPORTER_OTLP_ENDPOINT": self.endpoint,
            "OTEL_EXPORTER_OTLP_PROTOCOL": self.protocol,
            "OTEL_BSP_SCHEDULE_DELAY": "100",
        }

    @property
    def spans(self) -> list[Received]:
        """All spans, in the order they came."""
        with self._lock:
            return list(self._spans)

    def take(self, request: messages.ExportTraceServiceRequest) -> None:
        """Keep the spans of one request."""
        with self._lock:
            self._spans.extend(_received(request))

    def named(self, name: str, trace: str = "") -> list[Received]:
        """Return the spans of a name, of one trace or of any, the first begun first."""
        found = [s for s in self.spans if s.name == name and trace in ("", s.trace)]
        return sorted(found, key=lambda each: each.start_ns)

    def wait_for(self, name: str, trace: str = "", count: int = 1) -> list[Received]:
        """Return the spans of a name once there are ``count``."""
        what = f"{count} spans {name}"
        wait_until(lambda: len(self.named(name, trace)) >= count, what, 30)
        return self.named(name, trace)

    def parent(self, span: Received) -> Received | None:
        """Return a span's parent; None for a root, and for one that did not come."""
        return next((s for s in self.spans if (s.trace, s.id) == (span.trace, span.parent)), None)

    def line(self, span: Received) -> list[str]:
        """Return the names from a span's root down to it."""
        above = self.parent(span)
        return [*(self.line(above) if above else []), span.name]

    def children(self, span: Received) -> list[Received]:
        """Return the spans directly below one, the first begun first."""
        found = [s for s in self.spans if (s.trace, s.parent) == (span.trace, span.id)]
        return sorted(found, key=lambda each: each.start_ns)


@contextmanager
def collector(protocol: str = GRPC) -> Iterator[Collector]:
    """Receive spans on a free port of loopback."""
    received = Collector(protocol)
    with _over_grpc(received) if protocol == GRPC else _over_http(received):
        yield received


@contextmanager
def _over_grpc(received: Collector) -> Iterator[None]:
    """Serve OTLP over gRPC."""
    server = grpc.server(ThreadPoolExecutor(4))
    services.add_TraceServiceServicer_to_server(_Servicer(received), server)  # type: ignore[no-untyped-call]
    received.endpoint = f"http://127.0.0.1:{server.add_insecure_port('127.0.0.1:0')}"
    server.start()
    try:
        yield
    finally:
        server.stop(0).wait()


class _Servicer(services.TraceServiceServicer):
    def __init__(self, received: Collector) -> None:
        self._received = received

    def Export(  # noqa: N802  # the contract's name
        self, request: messages.ExportTraceServiceRequest, _context: grpc.ServicerContext
    ) -> messages.ExportTraceServiceResponse:
        """Keep the spans."""
        self._received.take(request)
        return messages.ExportTraceServiceResponse()


@contextmanager
def _over_http(received: Collector) -> Iterator[None]:
    """Serve OTLP over HTTP."""

    class Handler(BaseHTTPRequestHandler):
        """Takes POST /v1/traces."""

        def do_POST(self) -> None:
            """Keep the spans."""
            assert self.path == "/v1/traces"
            assert self.headers["Content-Type"] == "application/x-protobuf"
            body = self.rfile.read(int(self.headers["Content-Length"]))
            if self.headers.get("Content-Encoding") == "gzip":
                body = gzip.decompress(body)
            if not received.refusing:
                received.take(messages.ExportTraceServiceRequest.FromString(body))
            self.send_response(400 if received.refusing else 200)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        received.endpoint = f"http://127.0.0.1:{server.server_port}"
        threading.Thread(target=server.serve_forever, daemon=True).start()
        try:
            yield
        finally:
            server.shutdown()


def _received(request: messages.ExportTraceServiceRequest) -> Iterator[Received]:
    """Return the spans of a request."""
    for resource_spans in request.resource_spans:
        resource = _plain(resource_spans.resource.attributes)
        for scope_spans in resource_spans.scope_spans:
            for span in scope_spans.spans:
                yield Received(
                    name=span.name,
                    trace=span.trace_id.hex(),
                    id=span.span_id.hex(),
                    parent=span.parent_span_id.hex(),
                    kind=span.kind,
                    start_ns=span.start_time_unix_nano,
                    end_ns=span.end_time_unix_nano,
                    attributes=_plain(span.attributes),
                    status=span.status.code,
                    status_message=span.status.message,
                    resource=resource,
                    events=tuple(event.name for event in span.events),
                )


def _plain(attributes: Iterable[Any]) -> dict[str, Any]:
    """Return attributes as a dict of plain values."""
    found = {}
    for each in attributes:
        kind = each.value.WhichOneof("value")
        found[each.key] = getattr(each.value, kind) if kind else None
    return found
