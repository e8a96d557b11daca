# SPDX-License-Identifier: Apache-2.0
"""Spans of calls and streams, received over real OTLP; and tracing that is off."""

from __future__ import annotations

import gc
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import ipc_service_pb2_grpc as rpc
from aetherless_common import errors, tracing
from aetherless_common.channels import connect
from aetherless_common.server import serving
from framework.collector import CLIENT, ERROR, GRPC, HTTP, SERVER, Collector, collector
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.channels import TypedStream
    from aetherless_common.settings import Settings

WAIT_S = 20.0
SERVICE = "aetherless.ipc.v1.IpcService"
GET = f"{SERVICE}/GetChannel"
WATCH = f"{SERVICE}/WatchNothing"


@pytest.fixture(params=[GRPC, HTTP])
def received(
    request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Collector]:
    """Record this process's spans and receive them, over each protocol."""
    with collector(request.param) as collecting, recording(collecting.environment, monkeypatch):
        yield collecting


@contextmanager
def recording(
    variables: dict[str, str], monkeypatch: pytest.MonkeyPatch, timeout: float = WAIT_S
) -> Iterator[list[str]]:
    """Have this process record with these variables; give what it tells."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    told: list[str] = []
    tracing.start("test", told.append)
    try:
        yield told
    finally:
        tracing.stop(timeout)


class Service(rpc.IpcServiceServicer):
    """An ipc service whose GetChannel does what the test wants; and one that streams."""

    def __init__(self, behave: Callable[[str], None] = lambda _: None) -> None:
        self.behave = behave
        self.release = threading.Event()

    def GetChannel(  # noqa: N802
        self, request: pb.GetChannelRequest, _context: grpc.ServicerContext
    ) -> pb.GetChannelResponse:
        """Do what the test wants."""
        self.behave(request.name)
        return pb.GetChannelResponse()

    def watch(
        self, request: pb.GetChannelRequest, _context: grpc.ServicerContext
    ) -> Iterator[pb.GetChannelResponse]:
        """Answer once, wait for the test if it wants that, then do what it wants."""
        yield pb.GetChannelResponse()
        if request.name == "held":
            self.release.wait(WAIT_S)
        self.behave(request.name)

    def start(self) -> None:
        """Nothing to adopt."""

    def register(self, server: grpc.Server) -> None:
        """Add this servicer and its stream."""
        rpc.add_IpcServiceServicer_to_server(self, server)
        handler = grpc.unary_stream_rpc_method_handler(
            self.watch, pb.GetChannelRequest.FromString, pb.GetChannelResponse.SerializeToString
        )
        handlers = grpc.method_handlers_generic_handler(SERVICE, {"WatchNothing": handler})
        server.add_generic_rpc_handlers((handlers,))

    def stop(self) -> None:
        """Let streams end."""
        self.release.set()


@contextmanager
def served(settings: Settings, service: Service) -> Iterator[grpc.Channel]:
    """Serve, and give a channel."""
    with serving(settings, "ipc", service), connect(settings, "ipc") as channel:
        yield channel


def make(behave: Callable[[str], None] = lambda _: None) -> Service:
    """Return a service."""
    return Service(behave)  # type: ignore[abstract]  # the RPCs that the tests call are enough


def get(channel: grpc.Channel, name: str = "") -> None:
    """Call GetChannel."""
    rpc.IpcServiceStub(channel).GetChannel(pb.GetChannelRequest(name=name))


def watch(channel: grpc.Channel, name: str = "") -> TypedStream:
    """Call the stream."""
    method = channel.unary_stream(
        f"/{WATCH}", pb.GetChannelRequest.SerializeToString, pb.GetChannelResponse.FromString
    )
    return method(pb.GetChannelRequest(name=name))  # type: ignore[return-value]  # intercepted


def test_a_tree_of_calls_is_one_trace(settings: Settings, received: Collector) -> None:
    """A call, and a call made on its behalf: each a client's span around a server's."""

    def behave(name: str) -> None:
        if name == "outer":
            with connect(settings, "ipc") as channel:
                get(channel, "inner")

    with served(settings, make(behave)) as channel, tracing.span("work") as root:
        get(channel, "outer")
    received.wait_for("work")
    inner = received.wait_for(GET, root.trace_id, 4)[-1]
    assert received.line(inner) == ["work", GET, GET, GET, GET]
    kinds = [each.kind for each in received.named(GET)]
    assert kinds == [CLIENT, SERVER, CLIENT, SERVER]
    assert inner.attributes["rpc.response.status_code"] == "OK"
    assert inner.attributes["rpc.grpc.status_code"] == 0
    assert inner.attributes["rpc.system.name"] == "grpc"
    assert inner.resource["service.name"] == "aetherless-test"


def test_a_typed_error_is_in_both_spans(settings: Settings, received: Collector) -> None:
    """Status, reason, code and the error's fields; a handler's log is not sent anywhere."""

    def refuse(_: str) -> None:
        fields = {"channel": "a", "log": "secret"}
        raise errors.NotFound("CHANNEL_NOT_FOUND", "no channel a", fields, remedy="make one")

    with (
        served(settings, make(refuse)) as channel,
        pytest.raises(errors.NotFound),
        tracing.span("w"),
    ):
        get(channel)
    received.wait_for("w")
    for span in received.wait_for(GET, count=2):
        assert (span.status, span.status_message) == (ERROR, "no channel a")
        assert span.attributes["error.type"] == "CHANNEL_NOT_FOUND"
        assert span.attributes["rpc.response.status_code"] == "NOT_FOUND"
        assert span.attributes["rpc.grpc.status_code"] == grpc.StatusCode.NOT_FOUND.value[0]
        assert span.attributes["aetherless.error.channel"] == "a"
        assert span.attributes["aetherless.error.remedy"] == "make one"
        assert "secret" not in str(span)
    (root,) = received.named("w")
    assert root.attributes["error.type"] == "CHANNEL_NOT_FOUND"


def test_an_unknown_exception_brings_its_stack(settings: Settings, received: Collector) -> None:
    """What is our fault is an exception event of the server's span."""

    def fail(_: str) -> None:
        raise KeyError("what")

    with served(settings, make(fail)) as channel, pytest.raises(errors.Internal), tracing.span("w"):
        get(channel)
    client, server = received.wait_for(GET, count=2)
    assert server.attributes["error.type"] == "KeyError"
    assert server.events == ("exception",)
    assert client.attributes["error.type"] == "INTERNAL"


def test_a_stream_that_is_read_to_its_end(settings: Settings, received: Collector) -> None:
    """One span on each side for the whole of it, also when it ends with an error."""

    def behave(name: str) -> None:
        if name == "bad":
            raise errors.ResourceExhausted("FULL", "too much")

    with served(settings, make(behave)) as channel:
        with tracing.span("good") as good:
            assert len(list(watch(channel))) == 1
        with tracing.span("bad") as bad, pytest.raises(errors.ResourceExhausted):
            list(watch(channel, "bad"))
    client, server = received.wait_for(WATCH, good.trace_id, 2)
    assert received.line(server) == ["good", WATCH, WATCH]
    assert client.attributes["rpc.response.status_code"] == "OK"
    for span in received.wait_for(WATCH, bad.trace_id, 2):
        assert (span.status, span.attributes["error.type"]) == (ERROR, "FULL")


@pytest.mark.parametrize("leave", ["cancel", "forget"])
def test_a_stream_that_is_left(settings: Settings, received: Collector, leave: str) -> None:
    """Cancelled or just not read any more: both sides end their span."""
    service = make()
    with served(settings, service) as channel, tracing.span("w"):
        stream = watch(channel, "held")
        next(stream)
        if leave == "cancel":
            stream.cancel()
        del stream
        gc.collect()
        received.wait_for(WATCH, count=1)
        service.release.set()
        client, _server = received.wait_for(WATCH, count=2)
    assert client.status != ERROR or leave == "forget"


def test_calls_that_belong_to_nothing_are_not_recorded(
    settings: Settings, received: Collector
) -> None:
    """A loop that observes fills no collector, on neither side; a client without traces does."""
    with served(settings, make()) as channel:
        for _ in range(3):
            get(channel)
        with grpc.insecure_channel(f"unix:{settings.socket_path('ipc')}") as bare:
            get(bare)
        (span,) = received.wait_for(GET)
    assert (span.kind, span.parent) == (SERVER, "")
    tracing.stop(WAIT_S)
    assert received.named(GET) == [span]


def test_the_standard_variables_rule(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    """Name, resource, sampler and the switch are those of OpenTelemetry."""
    with collector() as received:
        named = {"OTEL_SERVICE_NAME": "mine", "OTEL_RESOURCE_ATTRIBUTES": "deployment.id=7"}
        with recording(received.environment | named, monkeypatch):
            tracing.begin("seen").end()
        with recording({"OTEL_TRACES_SAMPLER": "always_off"}, monkeypatch), tracing.span("unseen"):
            pass
        monkeypatch.delenv("OTEL_TRACES_SAMPLER")
        with recording({"OTEL_SDK_DISABLED": "true"}, monkeypatch):
            assert not tracing.recording()
        assert [span.name for span in received.spans] == ["seen"]
        resource = received.spans[0].resource
    assert (resource["service.name"], resource["deployment.id"]) == ("mine", "7")
    assert resource["aetherless.service"] == "test"


@pytest.mark.parametrize(
    "variables",
    [
        {},
        {"OTEL_TRACES_EXPORTER": "none", "OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1"},
        {"OTEL_TRACES_EXPORTER": "otlp", "OTEL_SDK_DISABLED": "TRUE"},
        {"OTEL_SERVICE_NAME": "aetherless"},
    ],
)
def test_off_is_free(variables: dict[str, str]) -> None:
    """Nothing of OpenTelemetry is imported, by a whole service either; spans are passive."""
    assert not tracing.wanted(variables)
    code = (
        "import sys, aetherless_common.server\n"
        "from aetherless_common import tracing\n"
        "tracing.start('x', print)\n"
        "with tracing.span('a') as span: span.set({'b': 1}); span.event('c')\n"
        "assert span is tracing.NOBODY and not tracing.recording()\n"
        "assert not [name for name in sys.modules if 'opentelemetry' in name]\n"
        "tracing.stop()"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], env=variables, capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stdout) == (0, ""), done.stderr


@pytest.mark.parametrize(
    ("variable", "value"),
    [("OTEL_TRACES_EXPORTER", "zipkin"), ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json")],
)
def test_an_unknown_setting_is_told_and_leaves_it_off(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As OpenTelemetry asks: a warning, and no failure."""
    variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://127.0.0.1:1", variable: value}
    with recording(variables, monkeypatch) as told:
        assert not tracing.recording()
    (line,) = told
    assert variable in line
    assert value in line


def test_no_collector_is_told_once_and_delays_little(monkeypatch: pytest.MonkeyPatch) -> None:
    """The first refusal ends the last flush; until then work goes on as if nothing was."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{free.getsockname()[1]}"}
        begun = time.monotonic()
        with recording(variables, monkeypatch, timeout=WAIT_S) as told:
            for _ in range(5):
                tracing.begin("lost").end()
        assert time.monotonic() - begun < WAIT_S / 2
    assert len(told) == 1
    assert "lost" in told[0]


def test_a_silent_collector_delays_by_a_bound(monkeypatch: pytest.MonkeyPatch) -> None:
    """One that takes the connection and never answers is waited for as long as is said."""
    with socket.create_server(("127.0.0.1", 0)) as mute:
        variables = {"OTEL_EXPORTER_OTLP_ENDPOINT": f"http://127.0.0.1:{mute.getsockname()[1]}"}
        with recording(variables, monkeypatch, timeout=0.3) as told:
            tracing.begin("lost").end()
            begun = time.monotonic()
        assert time.monotonic() - begun < WAIT_S / 2
    assert len(told) == 1


def test_a_collector_that_comes_back_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Once lost, once sent again; spans in between are lost, and the process goes on."""
    with collector(HTTP) as received:
        variables = received.environment | {"OTEL_EXPORTER_OTLP_TIMEOUT": "1"}
        with recording(variables, monkeypatch) as told:
            received.refusing = True
            tracing.begin("lost").end()
            wait_until(lambda: len(told) == 1, "told that spans are lost")
            received.refusing = False
            tracing.begin("kept").end()
            received.wait_for("kept")
            wait_until(lambda: len(told) == 2, "told that they are sent")
    assert "again" in told[1]
