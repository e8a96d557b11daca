# SPDX-License-Identifier: Apache-2.0
"""The reconciler: a real registry drives services that keep their contracts' rules."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import route_pb2
from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import (
    DataLoss,
    DeadlineExceeded,
    FailedPrecondition,
    Internal,
    Unavailable,
)
from framework.fake_host import RUNNING
from framework.registry_client import wait_until
from framework.served import NOTHING, serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.errors import AetherlessError
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

DEPLOY = [
    "CreateInstance",
    "AttachEndpoint",
    "CreateSnapshot",
    "DetachEndpoint",
    "DeleteInstance",
    "CreateInstance",
    "AttachEndpoint",
    "TryInstance",
    "ArmInstance",
    "SetRoute",
]
STEPS = [
    "create-golden",
    "attach-golden",
    "create-snapshot",
    "delete-golden",
    "create-instance",
    "attach-instance",
    "try-snapshot",
    "arm-instance",
    "set-route",
]


def test_a_function_is_deployed(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """It takes the steps in their order, and shows the instance that serves."""
    answer = registry.apply(spec())
    assert answer.functions[0].deploy_state == function_pb2.DEPLOY_STATE_DEPLOYING
    function = registry.deployed()
    assert host.calls == DEPLOY
    assert host.names() == serving()
    assert host.routes[8080].families == route_pb2.ROUTE_FAMILIES_IPV4
    assert (function.deploy_step, function.HasField("deploy_error")) == ("", False)
    wait_until(lambda: registry.get().state == function_pb2.FUNCTION_STATE_WARM_SNAPSHOT)
    (instance,) = wait_until(lambda: registry.get().instances)
    assert (instance.instance, instance.state) == ("instances/hello-r1-0", "ARMED")
    assert instance.snapshot == "snapshots/hello-r1"
    assert instance.address == host.endpoints["hello-r1-0"].outer_ipv4
    assert instance.init_pid == 3000


def test_progress_is_told_step_by_step(registry: RegistryClient, spec: Spec) -> None:
    """Each step is told when it begins and when it is done, a snapshot's phases in between."""
    watch = registry.watch()
    registry.apply(spec())
    registry.deployed()
    told = [event.progress for event in watch.of("PROGRESS")]
    done = [p.step for p in told if not p.phase and p.state == function_pb2.PROGRESS_STATE_DONE]
    begun = [p.step for p in told if not p.phase and p.state == function_pb2.PROGRESS_STATE_STARTED]
    assert begun == done == STEPS
    phases = [(p.step, p.phase, p.state) for p in told if p.phase]
    assert phases == [
        ("create-snapshot", "dump", function_pb2.PROGRESS_STATE_STARTED),
        ("create-snapshot", "dump", function_pb2.PROGRESS_STATE_DONE),
        ("try-snapshot", "restores", function_pb2.PROGRESS_STATE_DONE),
    ]


def test_many_functions_at_once(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """More functions than workers: all are deployed, none twice."""
    registry.apply(*[spec(f"f{n}", trigger_port=9000 + n) for n in range(20)])
    for number in range(20):
        registry.deployed(f"f{number}")
    assert host.calls.count("CreateSnapshot") == 20


def test_a_new_revision_replaces_the_old(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It is made beside the old one, whose instance then goes; its snapshot and files are kept."""
    registry.apply(spec())
    registry.deployed()
    registry.apply(spec(memory_limit_mb=256))
    function = registry.deployed(revision=2)
    assert function.revision == 2
    settled(host, serving(revision=2, kept=[1]))
    assert host.instances["hello-r2-0"].workload.memory_limit_bytes == 256 << 20


def test_declaring_the_same_again_changes_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """No revision, no step."""
    registry.apply(spec())
    before = registry.deployed()
    host.calls.clear()
    after = registry.apply(spec()).functions[0]
    assert (after.revision, after.etag) == (before.revision, registry.get().etag)
    assert host.calls == []


@pytest.mark.parametrize("rpc", sorted(set(DEPLOY)))
def test_a_failed_deploy_is_undone(
    registry: RegistryClient, host: FakeHost, spec: Spec, rpc: str
) -> None:
    """The service's own error is the function's, and nothing is left of the attempt."""
    error = FailedPrecondition("HANDLER_EXITED", "it ended", {"function": "hello", "log": "oops"})
    host.faults[rpc].append(error)
    registry.apply(spec())
    function = registry.failed()
    assert function.deploy_error.reason == "HANDLER_EXITED"
    assert function.deploy_error.metadata["log"] == "oops"
    netplane = {"AttachEndpoint", "DetachEndpoint", "SetRoute"}
    owner = "netplane" if rpc in netplane else "snapshotter"
    assert function.deploy_error.domain == f"{owner}.aetherless"
    assert function.deploy_step in STEPS
    assert function.serving_revision == 0
    settled(host, NOTHING)
    assert registry.get().deploy_error.reason == "HANDLER_EXITED"


def test_a_failed_revision_leaves_the_old_one(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It goes on serving; declaring again tries again, as a revision of its own."""
    registry.apply(spec())
    registry.deployed()
    host.faults["CreateSnapshot"].append(DeadlineExceeded("READY_TIMEOUT", "too late"))
    registry.apply(spec(memory_limit_mb=256))
    function = registry.failed()
    assert (function.revision, function.serving_revision) == (2, 1)
    assert (function.deploy_step, function.deploy_error.reason) == (
        "create-snapshot",
        "READY_TIMEOUT",
    )
    settled(host, serving())
    registry.apply(spec(memory_limit_mb=256))
    registry.deployed(revision=3)
    settled(host, serving(revision=3, kept=[1]))


def test_a_port_that_is_taken_on_the_host(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It is the netplane's error, at the step set-route."""
    host.foreign_ports.add(8080)
    registry.apply(spec())
    function = registry.failed()
    assert (function.deploy_error.reason, function.deploy_step) == ("PORT_IN_USE", "set-route")
    settled(host, NOTHING)


@pytest.mark.parametrize("error", [Unavailable("PEER", "x"), Internal("INTERNAL", "x")])
def test_passing_errors_are_retried(
    registry: RegistryClient, host: FakeHost, spec: Spec, error: AetherlessError
) -> None:
    """A service that restarts, or stumbles once, does not fail a deploy."""
    host.faults["CreateSnapshot"].append(error)
    host.faults["SetRoute"].append(error)
    registry.apply(spec())
    registry.deployed()
    assert host.names() == serving()


def test_a_lasting_fault_fails_the_deploy(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Three times INTERNAL in a row is a failure."""
    host.faults["ArmInstance"] += [Internal("INTERNAL", "x")] * 3
    registry.apply(spec())
    assert registry.failed().deploy_error.reason == "INTERNAL"
    settled(host, NOTHING)


def test_a_function_is_deleted(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """Watchers see it go, and nothing is left."""
    registry.apply(spec())
    registry.deployed()
    watch = registry.watch()
    registry.delete()
    registry.gone()
    assert host.names() == NOTHING
    assert watch.first("DELETED").function.name == "functions/hello"


def test_deleting_interrupts_a_long_step(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A snapshot that takes minutes is not waited for."""
    host.holds.clear()
    registry.apply(spec())
    wait_until(lambda: host.busy)
    registry.delete()
    registry.gone()
    assert host.names() == NOTHING


def test_a_new_declaration_interrupts_a_long_step(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """What was declared last is made; what was being made is not left over."""
    host.holds.clear()
    registry.apply(spec())
    wait_until(lambda: host.busy)
    registry.apply(spec(memory_limit_mb=256))
    wait_until(lambda: "hello-r1-golden" not in host.names()["instances"])
    host.holds.set()
    registry.deployed(revision=2)
    settled(host, serving(revision=2))


def test_an_instance_that_ended_is_replaced(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The port refuses meanwhile; the snapshot is used again."""
    registry.apply(spec())
    registry.deployed()
    host.calls.clear()
    host.end("hello-r1-0")
    wait_until(lambda: host.calls.count("SetRoute") == 2)
    settled(host, serving())
    assert host.calls == [
        "SetRoute",
        "DetachEndpoint",
        "CreateInstance",
        "AttachEndpoint",
        "ArmInstance",
        "SetRoute",
    ]
    registry.deployed()


@pytest.mark.parametrize("service", ["snapshotter", "netplane"])
def test_a_service_that_was_away_is_looked_at_again(
    registry: RegistryClient, host: FakeHost, services: FakeServices, spec: Spec, service: str
) -> None:
    """What was lost while it was away is made again; a deploy goes on where it was."""
    registry.apply(spec())
    registry.deployed()
    services.stop(service)
    with host.lock:
        host.routes.clear()
        host.endpoints.clear()
        host.instances.clear()
    registry.apply(spec("other", trigger_port=9090))
    services.start(service)
    registry.deployed("other")
    wait_until(lambda: len(host.names()["routes"]) == 2)
    assert host.names()["instances"] == ["hello-r1-0", "other-r1-0"]


def test_a_snapshotter_that_dies_during_a_snapshot(
    registry: RegistryClient, host: FakeHost, services: FakeServices, spec: Spec
) -> None:
    """Its golden is gone when it is back; another one is started."""
    host.holds.clear()
    registry.apply(spec())
    wait_until(lambda: host.busy)
    host.holds.set()
    services.stop("snapshotter")
    with host.lock:
        host.snapshots.clear()
    services.start("snapshotter")
    registry.deployed()
    settled(host, serving())


def test_a_damaged_snapshot_fails_loudly(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """No silent remake: the function fails with the reason, and can be declared again."""
    registry.apply(spec())
    registry.deployed()
    host.faults["CreateInstance"].append(DataLoss("SNAPSHOT_CORRUPT", "pages-1.img"))
    host.end("hello-r1-0")
    function = registry.failed()
    assert function.deploy_error.reason == "SNAPSHOT_CORRUPT"
    assert function.serving_revision == 0
    settled(host, NOTHING)
    registry.apply(spec())
    registry.deployed(revision=2)


def test_a_port_goes_from_one_function_to_another(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A renamed function takes the port over once the old one has let go."""
    registry.apply(spec())
    registry.deployed()
    registry.apply(spec("renamed"), prune=True)
    registry.deployed("renamed")
    registry.gone()
    settled(host, serving("renamed"))


def test_strangers_are_removed(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """What is named like ours and explained by nothing goes; what others made stays."""
    registry.apply(spec())
    registry.deployed()
    ghost = instance_pb2.Instance(name="instances/ghost-r3-0", netns_path="/g", state=RUNNING)
    ghost.workload.function_id = "ghost"
    other = instance_pb2.Instance(name="instances/by-hand", netns_path="/h", state=RUNNING)
    with host.lock:
        host.instances |= {"ghost-r3-0": ghost, "by-hand": other}
    host.end("hello-r1-0")  # anything that makes it look; a look at everything comes with time too
    host.changes.close()
    wait_until(lambda: "ghost-r3-0" not in host.names()["instances"])
    assert "by-hand" in host.names()["instances"]
