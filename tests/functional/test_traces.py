# SPDX-License-Identifier: Apache-2.0
"""Traces of a whole orchestrator with real programs, received over real OTLP."""

from __future__ import annotations

import json
import time
from functools import partial
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from framework.clients import call
from framework.collector import CLIENT, ERROR, SERVER, Collector, collector
from framework.guard import unchanged_host
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framework.collector import Received

ID = "traced"
APPLY = "aetherless.registry.v1.RegistryService/ApplyConfig"
WATCH = "aetherless.registry.v1.RegistryService/WatchFunctions"
SNAPSHOT = "aetherless.snapshotter.v1.SnapshotterService/CreateSnapshot"
ATTACH = "aetherless.netplane.v1.NetplaneService/AttachEndpoint"
FAILED_PRECONDITION = 6
# Clocks are converted on the way; far below any time that is compared.
SLACK_NS = 20_000_000


@pytest.fixture(scope="module")
def received() -> Iterator[Collector]:
    """Receive traces."""
    with collector() as collecting:
        yield collecting


@pytest.fixture(scope="module")
def mesh(received: Collector) -> Iterator[Orchestrator]:
    """Serve one function, with tracing on."""
    with unchanged_host(), Orchestrator([Function(ID, handler("plain"))]) as running:
        running.environment.update(received.environment)
        yield running.up()


def deploy(mesh: Orchestrator, function: Function) -> int:
    """Deploy one more function; return the exit status."""
    mesh.functions.append(function)
    file = mesh.home / f"{function.id}.yaml"
    file.write_text(yaml.safe_dump({"functions": [function.entry()]}))
    return mesh.ctl("deploy", str(file), timeout_s=120).status


def newest(received: Collector, name: str) -> Received:
    """Return the newest span of a name, once its trace has nothing but whole lines of spans."""
    span = received.wait_for(name)[-1]
    wait_until(lambda: not orphans(received, span.trace), f"all of {name}", 30)
    return span


def orphans(received: Collector, trace: str) -> list[Received]:
    """Return the spans of a trace whose parent is missing."""
    spans = [span for span in received.spans if span.trace == trace]
    return [span for span in spans if span.parent and received.parent(span) is None]


def in_trace(received: Collector, trace: str) -> list[Received]:
    """Return the spans of a trace."""
    return [span for span in received.spans if span.trace == trace]


def failed_phases(received: Collector, trace: str) -> list[Received]:
    """Return the phases that failed of a trace's snapshot, as the snapshotter sent them."""
    servers = [span for span in received.named(SNAPSHOT, trace) if span.kind == SERVER]
    phases = [phase for server in servers for phase in received.children(server)]
    return [phase for phase in phases if phase.status == ERROR]


def knows(received: Collector, trace: str, spans: set[str]) -> bool:
    """Say whether all spans of these ids have come."""
    return spans <= {span.id for span in in_trace(received, trace)}


def test_a_deploy_is_one_trace_over_all_services(mesh: Orchestrator, received: Collector) -> None:
    """From the command down to each service, streams and the snapshot's phases included."""
    assert deploy(mesh, Function("second", handler("keeper"))) == 0
    root = newest(received, "aetherctl deploy")
    assert (root.parent, root.status, root.attributes["process.exit.code"]) == ("", 0, 0)
    (course,) = received.wait_for("deploy", root.trace)
    assert received.line(course) == ["aetherctl deploy", APPLY, APPLY, "deploy"]
    steps = [step.name for step in received.children(course)]
    assert steps[0] == "create-golden"
    assert steps[-1] == "set-route"
    client, server = received.wait_for(SNAPSHOT, root.trace, 2)
    assert (client.kind, client.service) == (CLIENT, "aetherless-registry")
    assert (server.kind, server.service) == (SERVER, "aetherless-snapshotter")
    assert received.line(server)[-3:] == ["create-snapshot", SNAPSHOT, SNAPSHOT]
    phases = [phase.name for phase in received.children(server)]
    assert {"start", "ready", "warm-up", "dump", "publish"} <= set(phases)
    attached = received.wait_for(ATTACH, root.trace, 4)
    assert {span.service for span in attached} == {"aetherless-registry", "aetherless-netplane"}
    watched = received.wait_for(WATCH, root.trace, 2)
    assert {span.service for span in watched} == {"aetherless-cli", "aetherless-registry"}
    for span in in_trace(received, root.trace):
        above = received.parent(span)
        assert above is None or span.start_ns >= above.start_ns - SLACK_NS
    assert course.ms >= max(step.ms for step in received.children(course))


def test_a_wake_is_a_trace_of_kernel_times(mesh: Orchestrator, received: Collector) -> None:
    """It lies within the client's call, its parts lie end to end, and the command shows it."""
    mesh.evict(ID)
    before = time.time_ns()
    assert call(mesh.functions[0].port).ok
    after = time.time_ns()
    wake = newest(received, "wake")
    assert (wake.kind, wake.parent, wake.service) == (SERVER, "", "aetherless-registry")
    assert before - SLACK_NS <= wake.start_ns <= wake.end_ns <= after + SLACK_NS
    wait_until(lambda: len(received.children(wake)) == 4, "its parts")
    parts = received.children(wake)
    assert [part.name for part in parts] == ["hold", "restore", "replay", "answer"]
    assert all(one.end_ns == other.start_ns for one, other in pairwise(parts))
    assert (parts[0].start_ns, parts[-1].end_ns) == (wake.start_ns, wake.end_ns)
    assert wake.attributes["faas.name"] == ID
    assert wake.attributes["faas.coldstart"] is True
    assert wake.attributes["faas.trigger"] == "http"
    assert wake.attributes["aetherless.wake.held_packets"] >= 1
    shown = json.loads(mesh.must("-o", "json", "trace", ID).out)
    assert [part["name"] for part in shown["parts"]] == [part.name for part in parts]
    for told, part in zip(shown["parts"], parts, strict=True):
        assert told["duration_ms"] == pytest.approx(part.ms, abs=0.001)
    assert shown["wake"]["sequence"] == wake.attributes["aetherless.wake.sequence"]
    assert "first byte after" in mesh.must("trace", ID).out


def test_a_failed_deploy_has_its_reason_in_each_span(
    mesh: Orchestrator, received: Collector
) -> None:
    """From the phase that failed to the command's root, over three processes."""
    folder = mesh.home / "bad"
    folder.mkdir()
    exits = folder / "exits.py"
    exits.write_text('raise SystemExit("it will not do")')
    assert deploy(mesh, Function("bad", exits)) == FAILED_PRECONDITION
    root = newest(received, "aetherctl deploy")
    assert (root.status, root.attributes["process.exit.code"]) == (ERROR, FAILED_PRECONDITION)
    wait_until(lambda: failed_phases(received, root.trace), "the phase that failed", 30)
    wait_until(lambda: not orphans(received, root.trace), "all above it", 30)
    failed = [span for span in in_trace(received, root.trace) if span.status == ERROR]
    assert {span.attributes["error.type"] for span in failed} == {"HANDLER_EXITED"}
    names = {span.name for span in failed}
    assert {"aetherctl deploy", "deploy", "create-snapshot", SNAPSHOT} <= names
    deepest = max((received.line(span) for span in failed), key=len)
    assert deepest[:4] == ["aetherctl deploy", APPLY, APPLY, "deploy"]
    assert deepest[-2] == SNAPSHOT
    for span in failed:
        assert "log" not in {key.rpartition(".")[2] for key in span.attributes}


def lines_of(mesh: Orchestrator, service: str, trace: str) -> list[dict[str, Any]]:
    """Return a service's log lines about a trace; one that is being written is left out."""
    lines = mesh.settings.log_path(service).read_text().rpartition("\n")[0].splitlines()
    return [line for line in map(json.loads, lines) if line.get("trace_id") == trace]


def test_the_logs_of_services_name_the_trace(mesh: Orchestrator, received: Collector) -> None:
    """Each service's lines about a command's calls have its trace and a span of it."""
    mesh.must("wake", ID)
    root = newest(received, "aetherctl wake")
    for service in ("registry", "snapshotter"):
        mine = partial(lines_of, mesh, service, root.trace)
        named = {line["span_id"] for line in wait_until(mine, f"lines of {service}")}
        # A line is written before its span ends, and the spans of two services come as they like.
        wait_until(partial(knows, received, root.trace, named), f"the spans {service} names")


def test_events_name_the_trace(mesh: Orchestrator, received: Collector) -> None:
    """The event of a wake leads to its trace."""
    wake = newest(received, "wake")

    def told() -> set[str]:
        events = json.loads(mesh.must("-o", "json", "events", ID).out)["events"]
        return {event["trace_id"] for event in events if event["reason"] == "WOKEN"}

    wait_until(lambda: wake.trace in told(), "the event of the wake")
