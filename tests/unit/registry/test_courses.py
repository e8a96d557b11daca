# SPDX-License-Identifier: Apache-2.0
"""Deploys as traces: a real registry beside services that record, received over real OTLP."""

from __future__ import annotations

from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aetherless_common import tracing
from aetherless_common.errors import FailedPrecondition
from aetherless_common.server import serving
from aetherless_registry.service import RegistryService
from framework.collector import ERROR, SERVER, Collector, collector
from framework.registry_client import RegistryClient, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless.registry.v1 import function_pb2
    from aetherless_common.settings import Settings
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices

    Spec = Callable[..., function_pb2.FunctionSpec]

APPLY = "aetherless.registry.v1.RegistryService/ApplyConfig"
SNAPSHOTTER, NETPLANE = "snapshotter.v1.SnapshotterService", "netplane.v1.NetplaneService"
# Each step, and the calls that it is.
STEPS = {
    "create-golden": [f"{SNAPSHOTTER}/CreateInstance"],
    "attach-golden": [f"{NETPLANE}/AttachEndpoint"],
    "create-snapshot": [f"{SNAPSHOTTER}/CreateSnapshot"],
    "delete-golden": [f"{NETPLANE}/DetachEndpoint", f"{SNAPSHOTTER}/DeleteInstance"],
    "create-instance": [f"{SNAPSHOTTER}/CreateInstance"],
    "attach-instance": [f"{NETPLANE}/AttachEndpoint"],
    "try-snapshot": [f"{SNAPSHOTTER}/TryInstance"],
    "arm-instance": [f"{SNAPSHOTTER}/ArmInstance"],
    "set-route": [f"{NETPLANE}/SetRoute"],
}


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Record this process's spans, and receive them."""
    with collector() as collecting:
        for name, value in collecting.environment.items():
            monkeypatch.setenv(name, value)
        tracing.start("test", lambda _: None)
        yield collecting
        tracing.stop()


def test_a_deploy_is_in_the_trace_of_who_declared_it(
    received: Collector, registry: RegistryClient, spec: Spec
) -> None:
    """Each step below the deploy, each call below its step, though the call had returned."""
    with tracing.span("declaring") as root:
        registry.apply(spec())
    registry.deployed()
    (deploy,) = received.wait_for("deploy", root.trace_id)
    assert received.line(deploy) == ["declaring", APPLY, APPLY, "deploy"]
    assert deploy.attributes["aetherless.function"] == "hello"
    assert deploy.attributes["aetherless.revision"] == 1
    steps = received.children(deploy)
    assert [step.name for step in steps] == list(STEPS)
    for step in steps:
        calls = received.children(step)
        assert [call.name.removeprefix("aetherless.") for call in calls] == STEPS[step.name]
        for call in calls:
            (served,) = received.children(call)
            assert (served.kind, served.name) == (SERVER, call.name)
    # Looking at what there is belongs to nothing and is left out.
    assert not [span for span in received.spans if "/List" in span.name]


def test_events_and_logs_of_a_deploy_name_its_trace(
    received: Collector, registry: RegistryClient, spec: Spec
) -> None:
    """From the declaration to the end."""
    with tracing.span("declaring") as root:
        registry.apply(spec())
    registry.deployed()
    traces = {event.reason: event.trace_id for event in registry.events()}
    assert traces == {"DECLARED": root.trace_id, "DEPLOYED": root.trace_id}


def test_a_failed_deploy_says_why(
    received: Collector, registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """In the deploy, the step and both sides of the call; the undoing belongs to it too."""
    reason = "NOT_CHECKPOINTABLE"
    host.faults["CreateSnapshot"] = [FailedPrecondition(reason, "it holds an io_uring")]
    with tracing.span("declaring") as root:
        registry.apply(spec())
    registry.failed()
    (deploy,) = received.wait_for("deploy", root.trace_id)
    failed = [span for span in received.spans if span.status == ERROR]
    names = ["create-snapshot", *2 * [f"aetherless.{SNAPSHOTTER}/CreateSnapshot"], "deploy"]
    assert sorted(span.name for span in failed) == sorted(names)
    assert {span.attributes["error.type"] for span in failed} == {reason}
    assert deploy.attributes["aetherless.error.step"] == "create-snapshot"
    received.wait_for("delete-golden", root.trace_id)


def test_changed_repaired_rolled_back_and_deleted_functions(
    received: Collector, registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Each declaration has its own trace, and a repair, which nobody asked for, one of its own."""
    with tracing.span("first"):
        registry.apply(spec())
    registry.deployed()
    with tracing.span("second") as second:
        registry.apply(spec(environment={"COLOUR": "blue"}))
    registry.deployed(revision=2)
    (deploy,) = received.wait_for("deploy", second.trace_id)
    assert deploy.attributes["aetherless.revision"] == 2
    received.wait_for("delete-instance", second.trace_id)  # of the first revision
    host.end("hello-r2-0")
    (repair,) = received.wait_for("repair")
    assert repair.parent == ""
    assert "set-route" in [step.name for step in received.children(repair)]
    registry.deployed(revision=2)
    with tracing.span("third") as third:
        registry.roll_back()
    registry.deployed(revision=1)
    (rollback,) = received.wait_for("rollback", third.trace_id)
    assert "create-snapshot" not in [step.name for step in received.children(rollback)]
    with tracing.span("fourth") as fourth:
        registry.delete()
    registry.gone()
    (deletion,) = received.wait_for("delete", fourth.trace_id)
    assert received.children(deletion)[-1].name == "delete-root"


def test_a_deploy_that_another_registry_began(
    received: Collector, settings: Settings, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """What is left of it is one trace, and says so."""
    assert services.stacks
    host.holds.clear()
    with asking(settings) as client:
        with tracing.span("declaring"):
            client.apply(spec())
        wait_until(lambda: "CreateSnapshot" in host.calls, "a deploy under way")
    host.holds.set()
    with asking(settings) as client:
        client.deployed()
    begun, resumed = received.wait_for("deploy", count=2)
    assert "aetherless.resumed" not in begun.attributes
    assert resumed.attributes["aetherless.resumed"]
    assert "set-route" in [step.name for step in received.children(resumed)]


@contextmanager
def asking(settings: Settings) -> Iterator[RegistryClient]:
    """Serve a registry and ask it."""
    service = RegistryService(settings)
    service.start()
    with serving(settings, "registry", service):
        client = RegistryClient(settings)
        yield client
        client.close()
