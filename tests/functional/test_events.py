# SPDX-License-Identifier: Apache-2.0
"""What happened can be read afterwards: of deploys, wakes, programs and services, and live."""

from __future__ import annotations

import contextlib
import json
import signal
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import registry_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import Process, wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "eventful"
LIMIT_MS = 500

Event = dict[str, Any]


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for all tests of this module."""
    with orchestrator(
        Function(ID, handler("plain"), keys={"restore_timeout_ms": LIMIT_MS})
    ) as running:
        yield running


@pytest.fixture
def port(mesh: Orchestrator) -> int:
    """Return the function's port, once it sleeps."""
    mesh.wait_serving()
    port = mesh.functions[0].port
    wait_until(lambda: call(port).ok, "it answers")
    mesh.evict(ID)
    return port


def events(mesh: Orchestrator, *arguments: str) -> list[Event]:
    """Return what ``aetherctl events`` shows."""
    shown = mesh.must("events", "-n", "-1", "-o", "json", *arguments).out
    found: list[Event] = json.loads(shown)["events"]
    return found


def last(mesh: Orchestrator) -> int:
    """Return the number of the newest event."""
    return int(events(mesh)[-1]["sequence"])


def told(mesh: Orchestrator, since: int, reason: str) -> Event:
    """Wait for the first event of a kind after another one."""

    def look() -> Event | None:
        later = (each for each in events(mesh) if each["sequence"] > since)
        return next((each for each in later if each["reason"] == reason), None)

    found = wait_until(look, f"the event {reason}")
    assert found is not None
    return found


def test_a_deploy_a_wake_and_an_eviction(mesh: Orchestrator, port: int) -> None:
    """Each with its numbers, in the order they happened."""
    since = last(mesh)
    deployed = next(each for each in events(mesh, ID) if each["reason"] == "DEPLOYED")
    assert deployed["revision"] == 1
    assert int(deployed["metadata"]["durationMs"]) > 0
    assert call(port).ok
    woken = told(mesh, since, "WOKEN")
    assert woken["function"] == f"functions/{ID}"
    assert woken["metadata"]["cause"] == "packet"
    assert ":" in woken["metadata"]["client"]
    assert 0 < float(woken["metadata"]["restoreMs"]) < LIMIT_MS
    assert float(woken["metadata"]["firstByteMs"]) > float(woken["metadata"]["restoreMs"])
    mesh.evict(ID)
    evicted = told(mesh, woken["sequence"], "EVICTED")
    assert evicted["metadata"]["cause"] == "command"


def test_a_rollback(mesh: Orchestrator, port: int) -> None:
    """It is asked for, and then the earlier revision serves."""
    before = mesh.contracts.function(ID).serving_revision
    mesh.functions[0].keys["environment"] = {"COLOUR": "blue"}
    mesh.write_config()
    mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    since = last(mesh)
    request = registry_service_pb2.RollbackFunctionRequest(name=f"functions/{ID}")
    mesh.contracts.stub("registry").RollbackFunction(request, timeout=RPC_TIMEOUT_S)
    assert told(mesh, since, "ROLLED_BACK")["revision"] == before
    assert told(mesh, since, "DEPLOYED")["revision"] == before
    assert call(port).ok
    del mesh.functions[0].keys["environment"]
    mesh.write_config()


def test_a_deploy_that_fails(mesh: Orchestrator) -> None:
    """In the words of the service that refused, with the step; a warning."""
    mesh.wait_serving()
    since = last(mesh)
    config = mesh.home / "bad.yaml"
    fault = {"environment": {"FAULT": "ends_well"}}
    bad = Function("exits", handler("bad/faulty"), keys=fault)
    config.write_text(json.dumps({"orchestrator": mesh.keys, "functions": [bad.entry()]}))
    assert mesh.ctl("deploy", str(config), timeout_s=UP_TIMEOUT_S).status != 0
    failed = told(mesh, since, "DEPLOY_FAILED")
    assert failed["metadata"]["errorReason"] == "HANDLER_EXITED"
    assert failed["metadata"]["step"] == "create-snapshot"
    assert failed in events(mesh, "exits", "--warnings")
    mesh.must("delete", "exits")
    told(mesh, since, "DELETED")


def test_a_wake_that_comes_too_late(mesh: Orchestrator, port: int) -> None:
    """With the limit and the time taken; what came before and after is no warning."""
    since = last(mesh)
    mesh.waiting_criu(mesh.contracts.instance_id(ID)).stop()
    assert call(port).error
    late = told(mesh, since, "RESTORE_LATENCY_VIOLATION")
    assert late["severity"] == "EVENT_SEVERITY_WARNING"
    assert late["metadata"]["limitMs"] == str(LIMIT_MS)
    assert float(late["metadata"]["tookMs"]) >= LIMIT_MS
    assert call(port).ok
    assert "WOKEN" not in {each["reason"] for each in events(mesh, ID, "--warnings")}


def test_a_wake_that_fails_while_the_registry_is_dead(mesh: Orchestrator, port: int) -> None:
    """The next registry records it, once."""
    since = last(mesh)
    supervisor = mesh.living_process("supervisor")
    criu = mesh.waiting_criu(mesh.contracts.instance_id(ID))
    supervisor.stop()
    try:
        (victim,) = mesh.kill("registry")
        wait_until(lambda: not victim.is_alive(), "the registry is dead")
        criu.stop()
        assert call(port).error
    finally:
        supervisor.go_on()
    mesh.wait_serving("registry")
    told(mesh, since, "RESTORE_LATENCY_VIOLATION")
    back = told(mesh, since, "SERVICE_BACK")
    assert back["metadata"]["service"] == "registry"
    mesh.kill_and_wait("registry")
    told(mesh, back["sequence"], "SERVICE_BACK")
    later = [each["reason"] for each in events(mesh) if each["sequence"] > since]
    assert later.count("RESTORE_LATENCY_VIOLATION") == 1


@pytest.mark.parametrize("service", ["snapshotter", "netplane"])
def test_a_service_that_is_killed(mesh: Orchestrator, port: int, service: str) -> None:
    """It is lost and back; the function neither lost nor repaired."""
    assert port
    since = last(mesh)
    mesh.kill_and_wait(service)
    assert told(mesh, since, "SERVICE_LOST")["metadata"]["service"] == service
    assert told(mesh, since, "SERVICE_BACK")["metadata"]["service"] == service
    later = {each["reason"] for each in events(mesh, ID) if each["sequence"] > since}
    assert not later & {"INSTANCE_LOST", "REPAIRED"}


def test_a_sandbox_that_dies(mesh: Orchestrator, port: int) -> None:
    """It is lost, another one is made, and the calls are answered again."""
    since = last(mesh)
    init = Process.of(mesh.contracts.instance(ID).init_pid)
    init.kill()
    assert told(mesh, since, "INSTANCE_LOST")["function"] == f"functions/{ID}"
    assert told(mesh, since, "REPAIRED")["revision"] == 1
    wait_until(lambda: call(port).ok, "it answers again")


def test_a_program_that_eats_too_much(mesh: Orchestrator) -> None:
    """The limit is named; the next call restores it."""
    mesh.wait_serving()
    since = last(mesh)
    function = Function("glutton", handler("probe"), memory_mb=96)
    config = mesh.home / "glutton.yaml"
    config.write_text(json.dumps({"orchestrator": mesh.keys, "functions": [function.entry()]}))
    mesh.must("deploy", str(config), timeout_s=UP_TIMEOUT_S)
    call(function.port, "/eat?mb=300")
    exceeded = told(mesh, since, "MEMORY_LIMIT_EXCEEDED")
    assert exceeded["metadata"]["limitBytes"] == str(96 << 20)
    wait_until(lambda: call(function.port).ok, "it answers again")
    mesh.must("delete", "glutton")


@contextlib.contextmanager
def following(mesh: Orchestrator, path: Path) -> Iterator[subprocess.Popen[bytes]]:
    """Write what comes to a file, one JSON object per line, as long as the block runs."""
    with path.open("wb") as file:
        command = mesh.command("events", "-f", "-n", "1", "-o", "json")
        follower = subprocess.Popen(command, env=mesh.environment, stdout=file, cwd=mesh.home)
        try:
            wait_until(lambda: path.read_bytes().count(b"\n") == 1, "following began")
            yield follower
        finally:
            follower.send_signal(signal.SIGINT)
            assert follower.wait(30) == 0


def test_following_over_the_death_of_the_registry(mesh: Orchestrator, port: int) -> None:
    """Nothing is lost and nothing is told twice, however often it is killed."""
    path = mesh.home / "followed"
    with following(mesh, path):
        for _ in range(3):
            assert call(port).ok
            mesh.kill_and_wait("registry")
            mesh.wait_serving()
            mesh.evict(ID)
        newest = last(mesh)

        def arrived() -> bool:
            lines = path.read_text().splitlines()
            return int(json.loads(lines[-1])["sequence"]) >= newest

        wait_until(arrived, "the newest event is told")
    seen = [json.loads(line)["sequence"] for line in path.read_text().splitlines()]
    assert seen == list(range(seen[0], seen[-1] + 1))
    reasons = [json.loads(line)["reason"] for line in path.read_text().splitlines()]
    assert reasons.count("WOKEN") >= 3
    assert reasons.count("SERVICE_BACK") >= 3


def test_the_log_outlives_the_orchestrator() -> None:
    """What was before ``down`` can be read after the next ``up``; numbers go on."""
    function = Function("outlived", handler("plain"), keys={"restore_timeout_ms": LIMIT_MS})
    with orchestrator(function) as mesh:
        newest = last(mesh)
        mesh.down()
        mesh.up()
        kept = [each["sequence"] for each in events(mesh)]
        assert newest in kept
        assert kept == list(range(kept[0], kept[-1] + 1))
        assert events(mesh, function.id)[-1]["reason"] == "DEPLOYED"
