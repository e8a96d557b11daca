# SPDX-License-Identifier: Apache-2.0
"""``aetherctl check`` with real programs: what it says of each, and that nothing is left."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler
from framework.terminal import INTERRUPT, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "steady"
FAILED_PRECONDITION, ABORTED, UNAVAILABLE, DEADLINE_EXCEEDED = 6, 7, 10, 12
#: What every Python server has: modules with random generators of their own.
USUAL = {"random-generator"}
KVM = pytest.param(
    "/dev/kvm", marks=pytest.mark.skipif(not Path("/dev/kvm").exists(), reason="no /dev/kvm here")
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function, beside which others are checked."""
    with orchestrator(Function(ID, handler("plain"))) as running:
        yield running


@pytest.fixture
def port(mesh: Orchestrator) -> Iterator[int]:
    """Give the served function's port; in the end it serves as before, and is all there is."""
    port = mesh.functions[0].port
    assert call(port).ok
    before = mesh.contracts.function(ID)
    yield port
    assert call(port).ok
    after = mesh.contracts.function(ID)
    assert (after.revision, after.deploy_state) == (before.revision, before.deploy_state)
    only(mesh, ID)


def only(mesh: Orchestrator, *functions: str) -> None:
    """See that nothing is there but what serves these functions."""

    def left() -> set[str]:
        names = {each.name for each in mesh.contracts.instances()}
        names |= {path.name for path in mesh.settings.snapshot_root.glob("*")}
        folders = (mesh.settings.state_dir / "roots", mesh.settings.state_dir / "functions-log")
        names |= {path.name for folder in folders for path in folder.glob("*")}
        return {name for name in names if ".check" in name}

    wait_until(lambda: not left(), "nothing of a check is left")
    owners = {each.workload.function_id for each in mesh.contracts.instances()}
    assert owners == set(functions)


def check(mesh: Orchestrator, *arguments: str) -> tuple[int, list[dict[str, Any]]]:
    """Check something; returns the exit status and the outcomes."""
    done = mesh.ctl("-o", "json", "check", *arguments, timeout_s=120)
    assert done.out, done.err
    return done.status, json.loads(done.out)["checks"]


def holder(mesh: Orchestrator, holds: str, *arguments: str) -> tuple[int, dict[str, Any]]:
    """Check the program that holds something; returns the exit status and its outcome."""
    peer = f"PEER_PORT={mesh.functions[0].port}"
    program = str(handler("holder"))
    environment = ("--env", f"HOLDS={holds}", "--env", peer)
    status, (outcome,) = check(mesh, program, *environment, *arguments)
    return status, outcome


def subjects(outcome: dict[str, Any]) -> set[str]:
    """Return the kinds of what was found beside what is usual."""
    return {each["subject"] for each in outcome["findings"]} - USUAL


@pytest.mark.usefixtures("port")
def test_a_clean_program(mesh: Orchestrator) -> None:
    """It can be deployed, and the report has every figure."""
    status, (outcome,) = check(mesh, str(handler("hello")), "--restores", "5")
    assert (status, subjects(outcome), outcome["error"]) == (0, set(), None)
    report = outcome["report"]
    assert len(report["restores"]) == 5
    assert 0 < outcome["restore_p50_ms"] <= outcome["restore_max_ms"]
    assert report["processes"] == 1
    assert report["command"][-1] == str(handler("hello"))
    numbers = ("snapshot_bytes", "resident_bytes")
    assert all(report[name] > 1 << 20 for name in numbers)
    times = ("start_duration", "dump_duration", "first_answer", "suggested_restore_timeout")
    assert all(float(report[name].rstrip("s")) > 0 for name in times)


@pytest.mark.usefixtures("port")
def test_what_cannot_be_checkpointed(mesh: Orchestrator) -> None:
    """The cause and what to change, as findings and as the error; the exit status is its."""
    status, outcome = holder(mesh, "io_uring")
    assert (status, outcome["verdict"]) == (FAILED_PRECONDITION, "refused")
    assert subjects(outcome) == {"io-uring"}
    found = next(each for each in outcome["findings"] if each["subject"] == "io-uring")
    assert found["severity"] == "FINDING_SEVERITY_REFUSED"
    assert found["remedy"]
    assert found["command"] == "python3"
    error = outcome["error"]
    assert error["reason"] == "NOT_CHECKPOINTABLE"
    assert "holder can't be checkpointed" in error["message"]
    assert error["metadata"]["function"] == "holder"


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize("device", [KVM, "/dev/ptmx"])
def test_devices_cannot_be_had(mesh: Orchestrator, device: str) -> None:
    """One among the mounts is refused before anything is started."""
    function = Function("bad", handler("holder"), keys={"mounts": [device]})
    file = mesh.home / "device.yaml"
    file.write_text(json.dumps({"functions": [function.entry()]}))
    status, (outcome,) = check(mesh, str(file))
    assert (status, outcome["verdict"]) == (FAILED_PRECONDITION, "refused")
    assert outcome["error"]["reason"] == "NOT_CHECKPOINTABLE"
    assert device in outcome["error"]["metadata"]["cause"]


KEPT = [
    ("listener", {"listener"}),
    ("deleted_mapping", {"deleted-file"}),
    ("outbound", {"outbound-connection"}),
]


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize(("holds", "found"), KEPT)
def test_what_is_told(mesh: Orchestrator, holds: str, found: set[str]) -> None:
    """It can be deployed all the same."""
    status, outcome = holder(mesh, holds)
    assert (status, subjects(outcome)) == (0, found)
    assert outcome["report"]["restores"]


@pytest.mark.usefixtures("port")
def test_a_program_that_fails(mesh: Orchestrator) -> None:
    """Its own last words are in the error."""
    status, outcome = holder(mesh, "nothing-known")
    assert (status, outcome["verdict"]) == (FAILED_PRECONDITION, "failed")
    assert outcome["error"]["reason"] == "HANDLER_EXITED"
    assert "KeyError" in outcome["error"]["metadata"]["log"]


def test_the_function_that_is_deployed(mesh: Orchestrator, port: int) -> None:
    """Its own file, with its id and port: it is tried beside the one that serves."""
    status, (outcome,) = check(mesh, str(mesh.config))
    assert (status, outcome["id"]) == (0, ID)
    assert call(port).ok


@pytest.mark.usefixtures("port")
def test_every_function_of_a_file(mesh: Orchestrator) -> None:
    """One that fails does not keep the others from being checked; ``--id`` picks one."""
    bad = Function("bad", handler("holder"), keys={"environment": {"HOLDS": "io_uring"}})
    late = Function("late", handler("plain"), keys={"restore_timeout_ms": 1})
    good = Function("good", handler("plain"))
    file = mesh.home / "many.yaml"
    file.write_text(json.dumps({"functions": [each.entry() for each in (bad, late, good)]}))
    status, outcomes = check(mesh, str(file))
    assert status == FAILED_PRECONDITION
    verdicts = {each["id"]: each["verdict"] for each in outcomes}
    assert verdicts == {"bad": "refused", "late": "late", "good": "warnings"}
    status, (outcome,) = check(mesh, str(file), "--id", "late")
    assert (status, outcome["error"]["reason"]) == (
        DEADLINE_EXCEEDED,
        "RESTORE_LATENCY_VIOLATION",
    )
    assert check(mesh, str(file), "--id", "good")[0] == 0


@pytest.mark.usefixtures("port")
def test_it_is_shown_to_people(mesh: Orchestrator) -> None:
    """What stands against a checkpoint and what to change, above the measured times."""
    program = str(handler("holder"))
    shown = mesh.ctl("check", program, "--env", "HOLDS=io_uring")
    assert "can't be checkpointed" in shown.out
    assert "change: let it use epoll" in shown.out
    assert "error: NOT_CHECKPOINTABLE" in shown.err
    shown = mesh.must("check", program, "--env", "HOLDS=listener", "--id", "mine")
    assert "mine (" in shown.out
    assert "listens on 127.0.0.1:9001" in shown.out
    assert "restore_timeout_ms: " in shown.out


@pytest.mark.usefixtures("port")
def test_describe_shows_warnings(mesh: Orchestrator) -> None:
    """Those that were found when the function was deployed."""
    assert "random-generator" in mesh.must("describe", ID).out


@pytest.mark.usefixtures("port")
def test_the_warning_of_random_generators_is_true(mesh: Orchestrator) -> None:
    """After each restore they go on with the same numbers; only the kernel's are fresh."""
    function = Function("dice", handler("dice"))
    file = mesh.home / "dice.yaml"
    file.write_text(json.dumps({"functions": [function.entry()]}))
    _, (outcome,) = check(mesh, str(file))
    warning = next(each for each in outcome["findings"] if each["subject"] in USUAL)
    assert "OpenSSL's generator and Python's random" in warning["message"]
    mesh.must("deploy", str(file))
    throws = []
    for _ in range(2):
        throws.append(json.loads(call(function.port).body))
        mesh.evict("dice")
    first, second = throws
    assert (first["random"], first["openssl"]) == (second["random"], second["openssl"])
    assert first["kernel"] != second["kernel"]
    mesh.must("delete", "dice")
    wait_until(lambda: not mesh.contracts.instances("dice"), "it is gone")


@pytest.mark.usefixtures("port")
@pytest.mark.parametrize(
    ("holds", "step"), [("long_start", "ready"), ("one_answer", "try-snapshot")]
)
def test_an_interrupted_check_leaves_nothing(mesh: Orchestrator, holds: str, step: str) -> None:
    """Ctrl-C while the program starts, or while its restored copy does not answer."""
    program = str(handler("holder"))
    command = mesh.command("check", program, "--env", f"HOLDS={holds}")
    with Terminal(command, mesh.environment) as terminal:
        terminal.expect(step)
        terminal.type(INTERRUPT)
        assert terminal.wait() == ABORTED
    assert "INTERRUPTED" in terminal.text


@pytest.mark.parametrize("service", ["registry", "snapshotter"])
@pytest.mark.usefixtures("port")
def test_a_killed_service_leaves_nothing(mesh: Orchestrator, service: str) -> None:
    """The check fails by type; whoever comes back removes what was made."""
    program = str(handler("holder"))
    command = mesh.command("check", program, "--env", "HOLDS=long_start")
    with Terminal(command, mesh.environment) as terminal:
        terminal.expect("ready")
        mesh.kill(service)
        assert terminal.wait() == UNAVAILABLE
    mesh.wait_serving(service)


def test_without_an_orchestrator() -> None:
    """The services are started for a moment; their folders and all they made are gone then."""
    alone = Orchestrator([Function(ID, handler("hello"))])
    with alone:
        status, (outcome,) = check(alone, str(handler("hello")))
        assert (status, subjects(outcome)) == (0, set())
        assert not alone.settings.runtime_dir.exists()
        assert not alone.settings.state_dir.exists()
