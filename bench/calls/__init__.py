# SPDX-License-Identifier: Apache-2.0
"""Calls of functions through shared memory: Invoke beside an empty gRPC call, and attaching."""

from __future__ import annotations

import json
import sys
import time
from contextlib import ExitStack
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import pipeline_pb2
from bench.samples import Spread, Summary, percentile

from . import circle
from .peer import HOP
from .service import PEER, WAIT_S, Service, process

if TYPE_CHECKING:
    from collections.abc import Callable

ROUNDS = 15
CALLS = 150
ATTACHERS, ATTACHMENTS = 3, 40  # each less than a second's: more often is made to wait
PAUSES_S = {"at once": 0.001, "after a rest": 0.025}
RUNS, DISCARDED = 2000, 100
SPIN_S = "0.0005"
STAGE_SPIN_S = "0.005"  # longer than from one run to the next
PAYLOAD = bytes(64)
RELAYED = "the same, with a hand-over to another process and back"
Way = tuple[str, "Callable[[], object]"]


def ways(service: Service, stack: ExitStack) -> list[Way]:
    """Return the calls that are measured beside each other, each tried once."""
    empty, relayed = (bare_call(service, stack, way) for way in ("server", "relay"))
    plain = stack.enter_context(
        grpc.insecure_channel(f"unix:{service.settings.socket_path('ipc')}")
    )
    check = health_pb2_grpc.HealthStub(plain).Check
    invoke: Any = plain.unary_unary(
        "/aetherless.ipc.v1.IpcService/Invoke",
        request_serializer=pb.InvokeRequest.SerializeToString,
        response_deserializer=pb.InvokeResponse.FromString,
    )
    found: list[Way] = [
        ("empty gRPC call", lambda: empty(b"")),
        (RELAYED, lambda: relayed(b"")),
        ("health of the ipc service", lambda: check(health_pb2.HealthCheckRequest())),
    ]
    for name, spin in (("sleeping", "0"), ("spinning", SPIN_S)):
        service.function(name, "handler", spin)
        service.wait_attached(name)
        request = pb.InvokeRequest(function=f"functions/{name}", data=PAYLOAD)
        found.append((f"Invoke, handler {name}", lambda r=request: invoke(r, timeout=WAIT_S)))  # type: ignore[misc]
    return found


def bare_call(service: Service, stack: ExitStack, way: str) -> Any:
    """Start a bare gRPC server; return its call."""
    address = service.home / f"{way}.sock"
    stack.enter_context(process(sys.executable, str(PEER), way, str(address)))
    channel = stack.enter_context(grpc.insecure_channel(f"unix:{address}"))
    grpc.channel_ready_future(channel).result(WAIT_S)
    return channel.unary_unary("/bench.Empty/Call")


def round_us(call: Callable[[], object]) -> float:
    """Return the median of some calls, in µs."""
    took = []
    for _ in range(CALLS):
        began = time.perf_counter_ns()
        call()
        took.append((time.perf_counter_ns() - began) / 1000)
    return percentile(took, 0.5)


def invocations(service: Service) -> dict[str, Any]:
    """Return the medians of rounds in turn, and the ratio to the empty call of the same round."""
    with ExitStack() as stack:
        chosen = ways(service, stack)
        rounds = [{name: round_us(call) for name, call in chosen} for _ in range(ROUNDS + 1)][1:]
    empty = chosen[0][0]
    return {
        name: {
            "us": asdict(Spread.of([each[name] for each in rounds])),
            "ratio": asdict(Spread.of([each[name] / each[empty] for each in rounds])),
        }
        for name, _ in chosen
    }


def first_hops(service: Service, name: str, spin: str) -> dict[str, Any]:
    """Return how long a record needs from one stage's result to the next stage's handler, in µs.

    One run at a time, through the service. The second stage did nothing since the run before, some
    hundred µs of client and service ago: its code and data have left the caches, and its core may
    have been given to others. It spins in that time when it is to.
    """
    first, second = f"{name}-1", f"{name}-2"
    for each, patience in ((first, "0"), (second, spin)):  # a core is left for the rest
        service.function(each, "stage", patience)
        service.wait_attached(each)
    last = pipeline_pb2.Stage(function_id=second)
    getattr(last, "from").append(first)
    joined = pipeline_pb2.Pipeline(stages=[pipeline_pb2.Stage(function_id=first), last])
    service.stub.CreatePipeline(pb.CreatePipelineRequest(pipeline_id=name, pipeline=joined))
    request = pb.InvokeRequest(pipeline=f"pipelines/{name}", data=b"?")
    took = [
        HOP.unpack(service.stub.Invoke(request, timeout=WAIT_S).data)[0] / 1000 for _ in range(RUNS)
    ]
    return asdict(Summary.of(took[DISCARDED:]))


def attachments(service: Service, pause: float) -> dict[str, Any]:
    """Return how long a function needs to attach, so many seconds after the last one, in ms."""
    took: list[float] = []
    for number in range(ATTACHERS):
        name = f"attacher-{number}-{round(pause * 1000)}"
        child = service.function(name, "attacher", f"{ATTACHMENTS}/{pause}")
        said, _ = child.communicate(timeout=WAIT_S)
        took += json.loads(said)[1:]
    return asdict(Summary.of(took))


def measure() -> dict[str, Any]:
    """Measure all."""
    with Service() as service:
        attach = {name: attachments(service, pause) for name, pause in PAUSES_S.items()}
        found = {"attach_ms": attach, "invoke": invocations(service)}
    found["first_hop_us"] = {}
    for name, spin in (("sleeping", "0"), ("spinning", STAGE_SPIN_S)):
        with Service() as service:
            found["first_hop_us"][name] = first_hops(service, name, spin)
    return found | {"hop_us": circle.measure()}
