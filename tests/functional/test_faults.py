# SPDX-License-Identifier: Apache-2.0
"""Services that die: no function is lost, and calls are answered all the while."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from framework.clients import burst, call
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler
from framework.traffic import Background, Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framework.processes import Process

SERVICES = ("registry", "snapshotter", "netplane", "ipc")
STEPS = (
    "create-golden",
    "attach-golden",
    "create-snapshot",
    "delete-golden",
    "create-instance",
    "attach-instance",
    "try-snapshot",
    "arm-instance",
    "set-route",
)
ID = "steady"
NEW = "newcomer"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for all tests of this module."""
    with orchestrator(
        Function(ID, handler("plain"), keys={"restore_timeout_ms": 10000})
    ) as running:
        yield running


@pytest.fixture
def port(mesh: Orchestrator) -> int:
    """Return the steady function's port, once it is served and evictable."""
    mesh.wait_serving()
    port = mesh.functions[0].port
    assert call(port).ok
    return port


def assert_whole(mesh: Orchestrator, port: int) -> None:
    """Check that the function is deployed, is evicted on command, and wakes."""
    assert mesh.contracts.deploy_state(ID) == "DEPLOYED"
    mesh.wait_state(ID, "RUNNING")
    mesh.evict(ID)
    answer = call(port)
    assert answer.ok, answer
    assert answer.retransmissions == 0


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_dies_while_serving(mesh: Orchestrator, port: int, service: str) -> None:
    """A service is killed and comes back; clients notice nothing."""
    with Traffic(port) as traffic:
        mesh.kill_and_wait(service)
        traffic.go_on()
    assert traffic.failures() == []
    assert_whole(mesh, port)


@pytest.mark.parametrize("service", SERVICES)
def test_a_service_dies_during_a_wake(mesh: Orchestrator, port: int, service: str) -> None:
    """A service is killed while first clients wait for a restore; all are answered."""
    mesh.evict(ID)
    victim = mesh.living_process(service)
    criu = mesh.waiting_criu(mesh.contracts.instance_id(ID))
    restoring = instance_pb2.INSTANCE_STATE_RESTORING
    criu.stop()
    crowd = Background(port, 30)
    wait_until(lambda: mesh.contracts.instance(ID).state == restoring, "it restores")
    victim.kill()
    criu.go_on()
    answers = crowd.wait()
    assert [answer for answer in answers if not answer.ok] == []
    assert {answer.retransmissions for answer in answers} == {0}
    wait_until(lambda: mesh.process(service) != victim, f"{service} restarted")
    mesh.wait_serving()
    assert_whole(mesh, port)


def test_a_sandbox_needs_nobody(mesh: Orchestrator, port: int) -> None:
    """All four services are dead: an armed function wakes and answers all the same."""
    mesh.evict(ID)
    supervisor = mesh.living_process("supervisor")
    supervisor.stop()
    try:
        victims = mesh.kill(*SERVICES)
        answers = burst(port, 20)
        assert [answer for answer in answers if not answer.ok] == []
        assert {answer.retransmissions for answer in answers} == {0}
        assert not any(victim.is_alive() for victim in victims)
    finally:
        supervisor.go_on()
    mesh.wait_serving()
    assert_whole(mesh, port)


def test_all_four_die_at_once(mesh: Orchestrator, port: int) -> None:
    """All four services are killed and come back; the function went on and is found again."""
    with Traffic(port) as traffic:
        mesh.kill_and_wait(*SERVICES)
        traffic.go_on()
    assert traffic.failures() == []
    assert_whole(mesh, port)


def deploy_in_background(mesh: Orchestrator, function: Function) -> subprocess.Popen[bytes]:
    """Begin to deploy one more function with ``aetherctl deploy``."""
    mesh.functions.append(function)
    mesh.write_config()
    command = mesh.command("deploy", str(mesh.config))
    quiet = subprocess.DEVNULL
    return subprocess.Popen(command, env=mesh.environment, stdin=quiet, stdout=quiet, stderr=quiet)


def kill_at_step(
    mesh: Orchestrator, function: Function, step: str, service: str, phase: str = ""
) -> None:
    """Deploy a function and kill a service when a step is done, or one of its phases begins."""
    victim: Process = mesh.living_process(service)
    progress = mesh.contracts.watch_progress()
    deploy = deploy_in_background(mesh, function)
    progress.reach(function.id, step, "STARTED" if phase else "DONE", phase)
    victim.kill()
    deploy.wait(UP_TIMEOUT_S)


def assert_deployed_after_all(mesh: Orchestrator, function: Function, service: str) -> None:
    """Check that a deploy that met a dead service was finished, then delete its function."""
    mesh.wait_serving()
    wait_until(
        lambda: mesh.contracts.deploy_state(function.id) == "DEPLOYED",
        f"{function.id} deployed although {service} died",
        60,
    )
    assert call(function.port).ok
    mesh.must("delete", function.id)
    mesh.functions.remove(function)
    mesh.write_config()
    wait_until(lambda: mesh.contracts.instances(function.id) == [], f"{function.id} gone", 30)


@pytest.mark.parametrize("service", ["snapshotter", "netplane", "ipc"])
@pytest.mark.parametrize("step", ["attach-golden", "create-instance"])
def test_a_service_dies_during_a_deploy(
    mesh: Orchestrator, port: int, service: str, step: str
) -> None:
    """A service is killed within a deploy; the deploy is finished once it is back."""
    function = Function(NEW, handler("plain"))
    with Traffic(port) as traffic:
        kill_at_step(mesh, function, step, service)
        assert_deployed_after_all(mesh, function, service)
    assert traffic.failures() == []


@pytest.mark.parametrize("phase", ["start", "dump", "manifest"])
def test_the_snapshotter_dies_within_a_snapshot(mesh: Orchestrator, port: int, phase: str) -> None:
    """Killed while it makes a snapshot, it undoes the half of it, and the deploy is finished."""
    function = Function(NEW, handler("plain"))
    with Traffic(port) as traffic:
        kill_at_step(mesh, function, "create-snapshot", "snapshotter", phase)
        assert_deployed_after_all(mesh, function, "snapshotter")
    assert traffic.failures() == []
    assert list(mesh.settings.snapshot_root.glob(".tmp-*")) == []


@pytest.mark.parametrize("step", STEPS)
def test_the_registry_dies_after_each_step(mesh: Orchestrator, port: int, step: str) -> None:
    """The registry is killed after a step of a deploy and finishes it after its restart."""
    function = Function(NEW, handler("plain"))
    kill_at_step(mesh, function, step, "registry")
    assert_deployed_after_all(mesh, function, "registry")
    assert_whole(mesh, port)
