# SPDX-License-Identifier: Apache-2.0
"""A service's server, and channels to it, over a real Unix socket."""

from __future__ import annotations

import os
import select
import socket
import stat
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection_pb2, reflection_pb2_grpc

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import ipc_service_pb2_grpc as rpc
from aetherless.netplane.v1 import netplane_service_pb2 as netplane_pb
from aetherless.netplane.v1 import netplane_service_pb2_grpc as netplane_rpc
from aetherless_common import callcontext, errors, tracing
from aetherless_common.channels import connect, is_serving
from aetherless_common.lock import service_lock
from aetherless_common.proc import ProcessRef
from aetherless_common.server import serving
from aetherless_common.watch import Broadcaster

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.settings import Settings

WAIT_S = 20.0


class IpcService(rpc.IpcServiceServicer):
    """Answers GetChannel by a function that the test chooses; other RPCs are not called."""

    def __init__(
        self, behave: Callable[[pb.GetChannelRequest, grpc.ServicerContext], object]
    ) -> None:
        self.behave = behave

    def GetChannel(  # noqa: N802
        self, request: pb.GetChannelRequest, context: grpc.ServicerContext
    ) -> pb.GetChannelResponse:
        """Do what the test wants."""
        self.behave(request, context)
        return pb.GetChannelResponse()

    def start(self) -> None:
        """Nothing to adopt."""

    def register(self, server: grpc.Server) -> None:
        """Add this servicer."""
        rpc.add_IpcServiceServicer_to_server(self, server)

    def stop(self) -> None:
        """Nothing to end."""


def make_ipc(
    behave: Callable[[pb.GetChannelRequest, grpc.ServicerContext], object] = lambda *_: None,
) -> IpcService:
    """Return an ipc service; by default it answers with nothing."""
    return IpcService(behave)  # type: ignore[abstract]  # one RPC is enough


class NetplaneService(netplane_rpc.NetplaneServiceServicer):
    """Streams numbers from a broadcaster, for WatchTraffic."""

    def __init__(self) -> None:
        self.numbers: Broadcaster[int] = Broadcaster()
        self.subscribed = threading.Event()
        self.ended = threading.Event()

    def WatchTraffic(  # noqa: N802
        self, _request: netplane_pb.WatchTrafficRequest, context: grpc.ServicerContext
    ) -> Iterator[netplane_pb.WatchTrafficResponse]:
        """Stream until a 13 comes by."""
        with self.numbers.subscribe(limit=4) as subscription:
            context.add_callback(subscription.close)
            self.subscribed.set()
            for number in subscription:
                if number == 13:
                    raise errors.watcher_too_slow(4)
                yield netplane_pb.WatchTrafficResponse()
        self.ended.set()

    def start(self) -> None:
        """Nothing to adopt."""

    def register(self, server: grpc.Server) -> None:
        """Add this servicer."""
        netplane_rpc.add_NetplaneServiceServicer_to_server(self, server)

    def stop(self) -> None:
        """End the watches."""
        self.numbers.close()


@contextmanager
def ipc(
    settings: Settings, behave: Callable[[pb.GetChannelRequest, grpc.ServicerContext], object]
) -> Iterator[rpc.IpcServiceStub]:
    """Serve an ipc service that behaves so; give a stub."""
    with (
        serving(settings, "ipc", make_ipc(behave)),
        connect(settings, "ipc") as channel,
    ):
        yield rpc.IpcServiceStub(channel)


def test_an_error_arrives_as_it_was_raised(settings: Settings) -> None:
    """Class, reason, metadata, remedy, violations survive; the server adds its domain."""

    def refuse(_request: object, _context: object) -> None:
        raise errors.AlreadyExists(
            "CHANNEL_EXISTS",
            "channel a exists",
            {"channel": "a"},
            violations=[errors.Violation("channel.id", "taken")],
            remedy="choose another id",
        )

    with ipc(settings, refuse) as stub, pytest.raises(errors.AlreadyExists) as caught:
        stub.GetChannel(pb.GetChannelRequest(name="channels/a"))
    error = caught.value
    assert (error.reason, error.domain) == ("CHANNEL_EXISTS", "ipc.aetherless")
    assert error.metadata == {"channel": "a", "remedy": "choose another id"}
    assert error.violations == (errors.Violation("channel.id", "taken"),)
    assert error.remedy == "choose another id"


def test_an_unknown_exception_becomes_internal_and_says_nothing_of_itself(
    settings: Settings,
) -> None:
    """The client learns that it is our fault; the details are the log's."""

    def fail(_request: object, _context: object) -> None:
        raise KeyError("secret")

    with ipc(settings, fail) as stub, pytest.raises(errors.Internal) as caught:
        stub.GetChannel(pb.GetChannelRequest())
    assert (caught.value.reason, caught.value.domain) == ("INTERNAL", "ipc.aetherless")
    assert "secret" not in str(caught.value)


def test_socket_is_private_and_removed(settings: Settings) -> None:
    """The socket has mode 0600 while it exists; socket and pid file go with the server."""
    path = settings.socket_path("ipc")
    with ipc(settings, lambda *_: None) as stub:
        stub.GetChannel(pb.GetChannelRequest())
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
        assert ProcessRef.read(settings.pid_path("ipc")) == ProcessRef.of(os.getpid())
    assert not path.exists()
    assert not settings.pid_path("ipc").exists()


def test_health_and_reflection(settings: Settings) -> None:
    """Health knows "" and the service; reflection lists ours, health and itself, no more."""
    with ipc(settings, lambda *_: None), connect(settings, "ipc") as channel:
        checks = health_pb2_grpc.HealthStub(channel)
        for name in ("", "aetherless.ipc.v1.IpcService"):
            answer = checks.Check(health_pb2.HealthCheckRequest(service=name))
            assert answer.status == health_pb2.HealthCheckResponse.SERVING
        ask = reflection_pb2.ServerReflectionRequest(list_services="")
        answers = reflection_pb2_grpc.ServerReflectionStub(channel).ServerReflectionInfo(
            iter([ask])
        )
        names = {service.name for service in next(answers).list_services_response.service}
        assert is_serving(settings, "ipc", WAIT_S)
    assert names == {
        "aetherless.ipc.v1.IpcService",
        "grpc.health.v1.Health",
        "grpc.reflection.v1alpha.ServerReflection",
    }


def test_no_server_is_unavailable(settings: Settings) -> None:
    """Without a server the call fails at once, and says which service is missing."""
    with connect(settings, "snapshotter") as channel, pytest.raises(errors.Unavailable) as caught:
        health_pb2_grpc.HealthStub(channel).Check(health_pb2.HealthCheckRequest())
    assert caught.value.reason == "PEER_UNREACHABLE"
    assert caught.value.metadata["service"] == "snapshotter"


def test_a_returning_server_is_found_soon(settings: Settings) -> None:
    """A channel that lost its server reaches the next one without a long back-off."""
    with connect(settings, "ipc") as channel:
        stub = rpc.IpcServiceStub(channel)
        for _ in range(2):
            with pytest.raises(errors.Unavailable):
                stub.GetChannel(pb.GetChannelRequest())
            with serving(settings, "ipc", make_ipc()):
                stub.GetChannel(pb.GetChannelRequest(), timeout=WAIT_S, wait_for_ready=True)


def test_a_connection_may_take_a_while_to_be_made(settings: Settings) -> None:
    """As on a busy host: the client does not give up one whose server is slow to speak."""
    with socket.socket(socket.AF_UNIX) as listener, connect(settings, "ipc") as channel:
        listener.bind(str(settings.socket_path("ipc")))
        listener.listen()
        call = rpc.IpcServiceStub(channel).GetChannel.future(pb.GetChannelRequest())
        client, _ = listener.accept()
        with client:
            client.settimeout(WAIT_S)
            assert client.recv(4096).startswith(b"PRI * HTTP/2.0")
            assert not select.select([client], [], [], 0.5)[0]  # gRPC's least is 0.1 s
            call.cancel()


def test_a_late_answer_is_a_typed_timeout(settings: Settings) -> None:
    """The client's deadline ends the call with the service and the method."""
    release = threading.Event()
    with ipc(settings, lambda *_: release.wait(WAIT_S)) as stub:
        with pytest.raises(errors.DeadlineExceeded) as caught:
            stub.GetChannel(pb.GetChannelRequest(), timeout=0.05)
        release.set()
    assert caught.value.reason == "PEER_TIMEOUT"
    assert caught.value.metadata == {"service": "ipc", "method": "GetChannel"}


def test_handler_knows_its_deadline(settings: Settings) -> None:
    """The client's deadline, or the method's own, is what the handler has left."""
    seen: list[float | None] = []
    with ipc(settings, lambda *_: seen.append(callcontext.remaining())) as stub:
        stub.GetChannel(pb.GetChannelRequest(), timeout=3)
        stub.GetChannel(pb.GetChannelRequest())
        with grpc.insecure_channel(f"unix:{settings.socket_path('ipc')}") as bare:
            rpc.IpcServiceStub(bare).GetChannel(pb.GetChannelRequest())
    first, by_config, by_default = seen
    assert first is not None
    assert by_config is not None
    assert by_default is not None
    assert 2 < first < 4  # gRPC rounds up on its way
    assert 9 < by_config < 11
    assert 9 < by_default <= 10


def test_calls_made_by_a_handler_inherit_deadline_and_trace(settings: Settings) -> None:
    """A second call on behalf of the first has less time, and the same traceparent."""
    trace = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"
    seen: list[tuple[str, float | None, str]] = []

    def behave(request: pb.GetChannelRequest, _context: object) -> None:
        seen.append(
            (
                request.name,
                callcontext.remaining(),
                dict(tracing.current().carrier).get("traceparent", ""),
            )
        )
        if request.name == "outer":
            with connect(settings, "ipc") as channel:
                rpc.IpcServiceStub(channel).GetChannel(pb.GetChannelRequest(name="inner"))

    with ipc(settings, behave) as stub:
        stub.GetChannel(
            pb.GetChannelRequest(name="outer"), timeout=3, metadata=(("traceparent", trace),)
        )
    (_, outer, outer_trace), (_, inner, inner_trace) = seen
    assert outer is not None
    assert inner is not None
    assert inner < outer
    assert outer_trace == inner_trace == trace


def test_streaming_errors_and_ends(settings: Settings) -> None:
    """An error ends the stream typed; a client that cancels ends the handler, and iterates out."""
    service = NetplaneService()  # type: ignore[abstract]  # one RPC is enough
    with serving(settings, "netplane", service), connect(settings, "netplane") as channel:
        stub = netplane_rpc.NetplaneServiceStub(channel)
        stream = stub.WatchTraffic(netplane_pb.WatchTrafficRequest())
        assert service.subscribed.wait(WAIT_S)
        service.numbers.publish(1)
        assert isinstance(next(stream), netplane_pb.WatchTrafficResponse)
        service.numbers.publish(13)
        with pytest.raises(errors.ResourceExhausted) as caught:
            next(stream)
        assert caught.value.metadata["queueLimit"] == "4"
        assert caught.value.domain == "netplane.aetherless"
        service.subscribed.clear()
        stream = stub.WatchTraffic(netplane_pb.WatchTrafficRequest())
        assert service.subscribed.wait(WAIT_S)
        stream.cancel()
        assert list(stream) == []
        assert service.ended.wait(WAIT_S)


def test_a_call_that_is_not_waited_for(settings: Settings) -> None:
    """Begun by ``future``: its answer, its typed error, and its end from the client's side."""
    entered, ended = threading.Event(), threading.Event()

    def behave(request: pb.GetChannelRequest, context: grpc.ServicerContext) -> None:
        if request.name == "bad":
            raise errors.NotFound("CHANNEL_NOT_FOUND", "no channel", {"channel": "bad"})
        if request.name == "long":
            context.add_callback(ended.set)
            entered.set()
            assert ended.wait(WAIT_S)

    with ipc(settings, behave) as stub:
        assert stub.GetChannel.future(pb.GetChannelRequest()).result() is not None
        with pytest.raises(errors.NotFound, match="no channel"):
            stub.GetChannel.future(pb.GetChannelRequest(name="bad")).result()
        call = stub.GetChannel.future(pb.GetChannelRequest(name="long"))
        assert entered.wait(WAIT_S)
        assert not ended.is_set()
        assert call.cancel()
        assert ended.wait(WAIT_S)
        with pytest.raises(errors.Unavailable, match="cancelled"):
            call.result()


def test_draining_ends_streams(settings: Settings) -> None:
    """A watch does not hold up the end of its server."""
    service = NetplaneService()  # type: ignore[abstract]  # one RPC is enough
    with connect(settings, "netplane") as channel:
        with serving(settings, "netplane", service):
            stream = netplane_rpc.NetplaneServiceStub(channel).WatchTraffic(
                netplane_pb.WatchTrafficRequest()
            )
            assert service.subscribed.wait(WAIT_S)
        assert list(stream) == []


def test_lock_refuses_a_second_holder_and_leaves_nothing(settings: Settings) -> None:
    """Another open of the lock's file is refused with a typed error; the file is gone after."""
    with service_lock(settings, "ipc"):
        ProcessRef.of(os.getpid()).write(settings.pid_path("ipc"))
        with pytest.raises(errors.FailedPrecondition) as caught, service_lock(settings, "ipc"):
            pass
        assert caught.value.metadata["pid"] == str(os.getpid())
    assert caught.value.reason == "SERVICE_RUNNING"
    assert not settings.lock_path("ipc").exists()
    with service_lock(settings, "ipc"):
        assert settings.lock_path("ipc").exists()


def test_socket_never_has_wider_permissions(settings: Settings) -> None:
    """Watched from another thread while servers come and go, the mode is 0600 each time."""
    path, seen, end = settings.socket_path("ipc"), set(), threading.Event()

    def look() -> None:
        while not end.is_set():
            try:
                seen.add(stat.S_IMODE(path.lstat().st_mode))
            except FileNotFoundError:
                time.sleep(0)

    looking = threading.Thread(target=look)
    looking.start()
    for _ in range(20):
        with serving(settings, "ipc", make_ipc()):
            pass
    end.set()
    looking.join()
    assert seen == {0o600}
