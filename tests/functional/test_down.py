# SPDX-License-Identifier: Apache-2.0
"""``down`` leaves nothing, whatever it meets; the host comparison after each test is the proof."""

from __future__ import annotations

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from framework.clients import call
from framework.guard import orchestrator, unchanged_host
from framework.mesh import Function, Orchestrator
from framework.processes import Process, in_group, wait_until
from framework.programs import handler
from framework.traffic import Background

ID = "steady"
SERVICES = ("registry", "snapshotter", "netplane", "ipc")


def assert_nothing_runs(mesh: Orchestrator) -> None:
    """Check that no file and no group of the orchestrator's is left outside the state folder."""
    runtime = mesh.settings.runtime_dir
    assert not runtime.exists() or list(runtime.iterdir()) == []
    assert not mesh.group.exists()
    assert not mesh.settings.snapshot_root.exists()
    assert in_group(mesh.group) == []


def test_down_while_running_and_armed() -> None:
    """One function runs, one sleeps: down ends both."""
    functions = (Function("awake", handler("plain")), Function("asleep", handler("plain")))
    with orchestrator(*functions) as mesh:
        assert call(functions[0].port).ok
        mesh.down()
        assert_nothing_runs(mesh)
        assert [call(f.port).error for f in functions] == ["ECONNREFUSED", "ECONNREFUSED"]


def test_down_during_a_wake() -> None:
    """First clients wait while down runs: each is answered or reset, none hangs."""
    function = Function(ID, handler("plain"), keys={"restore_timeout_ms": 20000})
    with orchestrator(function) as mesh:
        mesh.waiting_criu(mesh.contracts.instance_id(ID)).stop()
        crowd = Background(function.port, 20, timeout_s=50)
        restoring = instance_pb2.INSTANCE_STATE_RESTORING
        wait_until(lambda: mesh.contracts.instance(ID).state == restoring, "it restores")
        mesh.down()
        assert_nothing_runs(mesh)
        answers = crowd.wait()
    assert len(answers) == 20
    assert {answer.error for answer in answers} <= {"ECONNRESET", "ECONNREFUSED", "ECONNABORTED"}


@pytest.mark.parametrize("asleep", [True, False], ids=["armed", "running"])
def test_down_with_no_service_alive(*, asleep: bool) -> None:
    """Supervisor and services are dead, sandboxes live: down ends those too."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as mesh:
        assert call(function.port).ok
        if asleep:
            mesh.evict(ID)
        for name in ("supervisor", *SERVICES):
            mesh.living_process(name).kill()
        assert in_group(mesh.group) != []
        mesh.down()
        assert_nothing_runs(mesh)


def test_down_with_nothing_alive() -> None:
    """Everything is dead, the inits too: down removes what they left."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as mesh:
        assert call(function.port).ok
        for name in ("supervisor", *SERVICES):
            mesh.living_process(name).kill()
        init = next(p for p in in_group(mesh.group) if "aether-init" in p.command()[0])
        init.kill()
        wait_until(lambda: not any(map(Process.is_alive, in_group(mesh.group))), "all ended")
        mesh.down()
        assert_nothing_runs(mesh)


def test_down_that_was_never_up() -> None:
    """Nothing was ever started: down says so and succeeds, twice."""
    with unchanged_host(), Orchestrator([Function(ID, handler("plain"))]) as mesh:
        assert mesh.ctl("down").status == 0
        assert mesh.ctl("down").status == 0


def test_up_again_after_down() -> None:
    """An orchestrator comes up again in the same folders and serves the same functions."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as mesh:
        first = call(function.port).json()
        mesh.down()
        mesh.up()
        second = call(function.port).json()
        assert second["token"] != first["token"]  # a new snapshot, of a new start
