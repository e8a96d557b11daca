# SPDX-License-Identifier: Apache-2.0
"""Calls through rings to real handlers: results, errors, deadlines, room, cancellation."""

from __future__ import annotations

import os
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc
import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import ipc_service_pb2_grpc
from aetherless_common import errors
from aetherless_ipc.errors import invocation_timeout
from aetherless_ring.layout import Layout
from framework.processes import wait_until

from .asking import RING, WAIT_S, admit, call, create, detach, get

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
TRACE = "00-0123456789abcdef0123456789abcdef-0123456789abcdef-01"


def refused(stub: IpcServiceStub, request: pb.InvokeRequest) -> errors.AetherlessError:
    """Return the error that ends a call."""
    with pytest.raises(errors.AetherlessError) as caught:
        stub.Invoke(request)
    return caught.value


def test_results_and_errors(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """A result comes back as it is; what the handler refuses comes typed, with its words."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        answer = stub.Invoke(call(data=b"hello"))
        assert (answer.data, answer.attempts, answer.woke) == (b"HELLO", 1, False)
        assert answer.elapsed.ToNanoseconds() > 0
        assert stub.Invoke(call()).data == b""
        error = refused(stub, call(method="fail"))
        assert (error.reason, error.code) == ("HANDLER_FAILED", "FAILED_PRECONDITION")
        assert error.metadata["handlerMessage"] == "ValueError: not like this"
        error = refused(stub, call(method="none"))
        assert (error.reason, error.metadata["method"]) == ("METHOD_NOT_FOUND", "none")
        error = refused(stub, call(method="blow", data=str(RING).encode()))
        assert error.reason == "HANDLER_FAILED"
        stats = get(stub).stats
        assert (stats.calls, stats.succeeded, stats.failed) == (5, 2, 3)
        assert (stats.in_flight, stats.waiting, stats.response_bytes) == (0, 0, 5)


def test_who_can_not_be_called(run_service: Any, stub: IpcServiceStub) -> None:
    """No such channel, none without an instance, no pipeline, no target at all."""
    with run_service():
        assert refused(stub, call("none")).reason == "CHANNEL_NOT_FOUND"
        create(stub)
        assert refused(stub, call()).reason == "CHANNEL_NOT_READY"
        assert refused(stub, pb.InvokeRequest(pipeline="pipelines/p")).metadata == {"pipeline": "p"}
        assert refused(stub, pb.InvokeRequest()).metadata["field"] == "function"


def test_sizes(run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path) -> None:
    """What a record can hold goes through; a byte more is refused with the limit."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        limit = Layout(RING).largest_payload - 24
        data = os.urandom(limit).lower()
        assert stub.Invoke(call(data=data)).data == data.upper()
        error = refused(stub, call(data=data + b"x"))
        assert (error.reason, error.metadata["limit"]) == ("PAYLOAD_TOO_LARGE", str(limit))


def test_deadlines(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """The smaller of the call's time and gRPC's ends it; an answer that is late is dropped."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        error = refused(stub, call(method="sleep", data=b"2", timeout=1))
        assert (error.reason, error.metadata["timeoutMs"]) == ("INVOCATION_TIMEOUT", "1000")
        wait_until(lambda: get(stub).stats.dropped_answers == 1, "the late answer is dropped")
        assert stub.Invoke(call(data=b"next")).data == b"NEXT"
        with pytest.raises(errors.DeadlineExceeded) as caught:
            stub.Invoke(call(method="sleep", data=b"2"), timeout=1)
        assert caught.value.reason == "INVOCATION_TIMEOUT"
        wait_until(lambda: get(stub).stats.timed_out == 2, "both are counted")
        assert get(stub).stats.in_flight == 0


def test_nobody_attaches(run_service: Any, stub: IpcServiceStub, tmp_path: Path) -> None:
    """Without a snapshotter that could wake it, a call says so."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        assert refused(stub, call()).reason == "PEER_UNREACHABLE"
        detach(stub)
        error = refused(stub, call(timeout=0.1))  # it is not admitted: nobody is woken
        assert (error.reason, error.metadata["attempts"]) == ("INVOCATION_TIMEOUT", "0")


def test_many_in_flight(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Calls of many threads at once, in a ring that holds few of them: each gets its own answer."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "4")

        def one(number: int) -> bool:
            data = f"call-{number}-".encode() * (1 + number % 90)
            return stub.Invoke(call(data=data, patient=True)).data == data.upper()

        with ThreadPoolExecutor(32) as pool:
            assert all(pool.map(one, range(2000)))
        stats = get(stub).stats
        assert (stats.succeeded, stats.failed, stats.redelivered) == (2000, 0, 0)


def test_no_room(run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path) -> None:
    """A peer that reads nothing fills up: the next call is refused at once, or waits when asked."""
    with run_service():
        create(stub)
        attached = peer("f-r1-0/tree")
        attached.ask("attach", admit(stub, tmp_path / "0"))
        data = bytes(Layout(RING).largest_payload // 2)
        with ThreadPoolExecutor(16) as pool:
            held = [pool.submit(refused, stub, call(data=data, timeout=2)) for _ in range(7)]
            wait_until(lambda: get(stub).stats.in_flight == 7, "the ring is nearly full")
            wait_until(lambda: refused_at_once(stub, data), "no room is told")
            begun = time.monotonic()
            error = refused(stub, call(data=data, timeout=0.2, patient=True))
            assert error.reason == "INVOCATION_TIMEOUT"
            assert time.monotonic() - begun >= 0.2
            assert {each.result().reason for each in held} == {"INVOCATION_TIMEOUT"}


def refused_at_once(stub: IpcServiceStub, data: bytes) -> bool:
    """Say whether a call is refused for lack of room."""
    return refused(stub, call(data=data, timeout=0.01)).reason == "RING_FULL"


def test_room_comes(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Calls that wait for room go on as the peer reads; none is lost and none comes twice."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        data = b"x" * (Layout(RING).largest_payload - 100)
        with ThreadPoolExecutor(24) as pool:
            answers = list(
                pool.map(lambda _: stub.Invoke(call(data=data, patient=True)).data, range(400))
            )
        assert answers == [data.upper()] * 400


def test_cancelled(
    run_service: Any,
    stub: IpcServiceStub,
    serving_peer: Any,
    tmp_path: Path,
    settings: Settings,
) -> None:
    """A caller that leaves is forgotten; its answer is dropped, other calls go on."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        with grpc.insecure_channel(f"unix:{settings.socket_path('ipc')}") as channel:
            plain = ipc_service_pb2_grpc.IpcServiceStub(channel)
            left = plain.Invoke.future(call(method="sleep", data=b"2"))
            wait_until(lambda: get(stub).stats.in_flight == 1, "it is in flight")
            left.cancel()
            wait_until(lambda: get(stub).stats.cancelled == 1, "it is forgotten")
            assert get(stub).stats.in_flight == 0
            assert stub.Invoke(call(data=b"next")).data == b"NEXT"
            assert get(stub).stats.dropped_answers == 1


def test_trace(run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path) -> None:
    """What the caller sent as its trace comes with the record."""
    with run_service():
        create(stub)
        process = serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        request = call(method="about")
        answer, _ = stub.Invoke.with_call(request, metadata=(("traceparent", TRACE),))
        assert answer.data.decode().split() == [str(process.child.pid), "1", TRACE]


def test_the_switch(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """New calls go to the instance that the channel names; those in flight end where they are."""
    with run_service():
        create(stub)
        old = serving_peer(admit(stub, tmp_path / "0"), "handler", "1").child.pid
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(stub.Invoke, call(method="sleep", data=b"2"))
            wait_until(lambda: get(stub).stats.in_flight == 1, "it is in flight")
            path = admit(stub, tmp_path / "1", "f-r2-0")
            new = serving_peer(path, "handler", "1", instance="f-r2-0").child.pid
            about = stub.Invoke(call(method="about")).data.split()
            assert (int(about[0]), new != old) == (new, True)
            assert held.result(WAIT_S).attempts == 1


def test_deleted_while_called(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Calls of a channel that is deleted end with PEER_GONE, those that wait as well."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(refused, stub, call(method="sleep", data=b"60", timeout=60))
            wait_until(lambda: get(stub).stats.in_flight == 1, "it is in flight")
            stub.DeleteChannel(pb.DeleteChannelRequest(name="channels/c"))
            assert held.result(WAIT_S).reason == "PEER_GONE"


def test_a_timeout_tells_how_often_it_was_delivered() -> None:
    """More than once is no matter of time: a process that lives is given a call once."""
    never, once, often = (invocation_timeout("function", "f", 5, count) for count in (0, 1, 3))
    assert never.message.endswith("; not delivered")
    assert once.message.endswith("; delivered once")
    assert often.message.endswith("; delivered 3 times")
    assert (never.remedy, once.remedy) == ("", "")
    assert "its process ended" in often.remedy
