# SPDX-License-Identifier: Apache-2.0
"""Wakes as traces: a real registry hears of them, their spans are received over real OTLP."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import netplane_service_pb2, route_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common import tracing
from aetherless_registry import wakespans
from framework.collector import ERROR, INTERNAL, SERVER, Collector, collector
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless.registry.v1 import function_pb2
    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

PACKET = instance_pb2.WAKE_CAUSE_PACKET
BEGUN = 1_700_000_000_000_000_000
MS = 1_000_000
NAME = "hello-r1-0"


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Record this process's spans, and receive them."""
    with collector() as collecting:
        for name, value in collecting.environment.items():
            monkeypatch.setenv(name, value)
        tracing.start("test", lambda _: None)
        yield collecting
        tracing.stop()


def woken(host: FakeHost, reason: str = "", message: str = "") -> None:
    """Let the sandbox report a wake: asked after 1 ms, restored after 10, open after 11."""
    with host.lock:
        instance = host.instances[NAME]
        wake = instance_pb2.Wake(
            sequence=instance.wakes + 1,
            cause=PACKET,
            client="[::1]:4711",
            held_packets=3,
            failure_reason=reason,
            failure_message=message,
        )
        wake.first_packet_time.FromNanoseconds(BEGUN)
        wake.request_latency.FromNanoseconds(1 * MS)
        wake.restore_duration.FromNanoseconds(9 * MS)
        wake.total_duration.FromNanoseconds(11 * MS)
        instance.wakes += 1
        instance.last_wake.CopyFrom(wake)
        host.change(instance, wake)


def answered(host: FakeHost, after_ms: int) -> None:
    """Let the netplane see the first answer."""
    answer = route_pb2.FirstAnswer(endpoint=f"endpoints/{NAME}")
    answer.first_packet_time.FromNanoseconds(BEGUN)
    answer.first_byte.FromNanoseconds(after_ms * MS)
    host.answers.publish(netplane_service_pb2.WatchTrafficResponse(first_answer=answer))


def offsets(received: Collector, trace: str) -> list[tuple[str, float, float]]:
    """Return a wake's parts, as milliseconds from its first packet."""
    (wake,) = received.wait_for("wake", trace)
    return [
        (part.name, (part.start_ns - BEGUN) / MS, (part.end_ns - BEGUN) / MS)
        for part in received.children(wake)
    ]


def test_a_wake_is_a_trace_of_kernel_times(
    received: Collector, registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Its parts lie end to end, from the first packet to the first answer; its event names it."""
    registry.apply(spec())
    registry.deployed()
    woken(host)
    answered(host, 14)
    (wake,) = received.wait_for("wake")
    assert (wake.kind, wake.parent, wake.status) == (SERVER, "", 0)
    assert (wake.start_ns, wake.end_ns) == (BEGUN, BEGUN + 14 * MS)
    wait_until(lambda: len(received.children(wake)) == 4, "four parts")
    assert offsets(received, wake.trace) == [
        ("hold", 0, 1),
        ("restore", 1, 10),
        ("replay", 10, 11),
        ("answer", 11, 14),
    ]
    assert {part.kind for part in received.children(wake)} == {INTERNAL}
    expected = {
        "faas.name": "hello",
        "faas.invoked_name": "hello",
        "faas.version": "1",
        "faas.instance": NAME,
        "faas.trigger": "http",
        "faas.coldstart": True,
        "client.address": "::1",
        "client.port": 4711,
        "server.port": 8080,
        "aetherless.wake.held_packets": 3,
        "aetherless.wake.restore_limit_ms": 15.0,
    }
    assert expected.items() <= wake.attributes.items()
    wait_until(lambda: "WOKEN" in registry.reasons(), "the event")
    (event,) = registry.events(newest_first=True, page_size=1)
    assert event.trace_id == wake.trace
    (instance,) = registry.get().instances
    assert instance.newest_wake.first_byte.ToMilliseconds() == 14
    assert instance.newest_wake.request_latency.ToMilliseconds() == 1


def test_a_failed_wake_is_a_failed_span(
    received: Collector, registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The whole and its restore have the reason; the client was reset when the gate opened."""
    registry.apply(spec())
    registry.deployed()
    woken(host, "RESTORE_LATENCY_VIOLATION", "took too long")
    (wake,) = received.wait_for("wake")
    wait_until(lambda: len(received.children(wake)) == 3, "three parts")
    hold, restore, reset = received.children(wake)
    assert (hold.status, reset.name) == (0, "reset")
    for span in (wake, restore):
        assert (span.status, span.status_message) == (ERROR, "took too long")
        assert span.attributes["error.type"] == "RESTORE_LATENCY_VIOLATION"
        assert span.attributes["aetherless.error.domain"] == "snapshotter.aetherless"


def test_a_wake_by_command_is_in_the_commands_trace(
    received: Collector, registry: RegistryClient, spec: Spec
) -> None:
    """Below the server's span of WakeFunction; the function was not called, so no HTTP."""
    with tracing.span("asking"):
        registry.apply(spec())
    registry.deployed()
    with tracing.span("waking") as root:
        registry.wake()
    (wake,) = received.wait_for("wake", root.trace_id)
    call = "aetherless.registry.v1.RegistryService/WakeFunction"
    line = ["waking", call, call, "wake"]
    wait_until(lambda: received.line(wake) == line, f"{line}, is {received.line(wake)}")
    assert wake.attributes["faas.trigger"] == "other"


def test_a_command_without_its_wake_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Instances come and go under ever new names; nothing is kept of those that never woke."""
    spans = wakespans.WakeSpans()
    monkeypatch.setattr(wakespans, "COMMAND_S", 0.0)
    for number in range(3):
        spans.commanded(f"hello-r{number}-0")
    assert len(spans._commands) == 1
