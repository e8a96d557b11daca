# SPDX-License-Identifier: Apache-2.0
"""``aetherctl`` as a user has it: in a terminal, in scripts, two orchestrators on one host."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import time
from typing import TYPE_CHECKING, Any

import pytest
import yaml

from framework.clients import call
from framework.guard import orchestrator, unchanged_host
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler
from framework.terminal import INTERRUPT, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "cli-function"
INTERRUPTS, STEP_S = 12, 0.002
USAGE, INVALID, NOT_FOUND, PRECONDITION, UNAVAILABLE = 2, 3, 4, 6, 10
COMMANDS = ("up", "down", "deploy", "delete", "list", "describe", "stats", "validate")
MORE_COMMANDS = ("doctor", "logs", "evict", "wake", "trace", "check", "config", "completion")


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for the tests that only look."""
    with orchestrator(Function(ID, handler("plain"))) as running:
        yield running


def as_json(mesh: Orchestrator, *arguments: str) -> Any:
    """Run a command with JSON output and return what it printed, parsed."""
    return json.loads(mesh.must("-o", "json", *arguments).out)


@pytest.mark.parametrize("ending", ["interrupt", "hangup"])
def test_up_in_the_foreground(ending: str) -> None:
    """Phases are shown live, each wake has a line, and Ctrl-C or a hang-up takes all down."""
    function = Function(ID, handler("plain"))
    with unchanged_host(), Orchestrator([function]) as mesh:
        with Terminal(mesh.command("up", "-f"), mesh.environment) as terminal:
            terminal.expect(r"create-snapshot|dump", 120)
            terminal.expect(rf"{ID}: revision 1 serves after", 120)
            mesh.wait_state(ID, "WARM_SNAPSHOT")
            seen = len(terminal.text)
            assert call(function.port).ok
            line = terminal.expect(
                rf"(?s)\A.{{{seen}}}.*?({ID}[^\n]*\d+(\.\d+)? ms[^\n]*)\n"
            ).group(1)
            assert line.count(" ms") >= 2 or line.count("ms") >= 2  # restore and first byte
            if ending == "interrupt":
                terminal.type(INTERRUPT)
            else:
                terminal.child.send_signal(signal.SIGHUP)
            assert terminal.wait() in {0, 130}
        assert not mesh.settings.runtime_dir.exists() or not list(
            mesh.settings.runtime_dir.iterdir()
        )
        assert call(function.port).error == "ECONNREFUSED"


def test_two_orchestrators_on_one_host(mesh: Orchestrator) -> None:
    """A second orchestrator in folders of its own serves beside the first and goes alone."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as second:
        assert second.id != mesh.id
        first_port = mesh.functions[0].port
        tokens = {call(port).json()["token"] for port in (first_port, function.port)}
        assert len(tokens) == 2
        second.must("evict", ID)
        mesh.wait_state(ID, "RUNNING")
        assert call(function.port).ok
    assert call(mesh.functions[0].port).ok
    assert mesh.contracts.deploy_state(ID) == "DEPLOYED"


def test_two_orchestrators_want_one_port(mesh: Orchestrator) -> None:
    """A port that another orchestrator serves is in use."""
    function = Function("thief", handler("plain"), port=mesh.functions[0].port)
    with unchanged_host(), Orchestrator([function]) as second:
        done = second.ctl("-o", "json", "up", timeout_s=120)
        assert done.status == PRECONDITION
        assert "PORT_IN_USE" in done.err + done.out
    assert call(function.port).ok


def test_list_and_describe(mesh: Orchestrator) -> None:
    """The table names the function; describe proves that a restored process answered."""
    mesh.must("evict", ID)
    assert call(mesh.functions[0].port).ok
    mesh.wait_state(ID, "RUNNING")
    table = mesh.must("list").out
    assert ID in table
    assert str(mesh.functions[0].port) in table
    instance = mesh.contracts.instance(ID)
    shown = mesh.must("describe", ID).out
    assert str(instance.root_pid) in shown
    assert instance.snapshot.removeprefix("snapshots/") in shown
    listed = json.dumps(as_json(mesh, "list"))
    assert f'"{ID}"' in listed
    assert yaml.safe_load(mesh.must("-o", "yaml", "list").out) == as_json(mesh, "list")
    assert f'"{ID}"' in json.dumps(as_json(mesh, "describe", ID))


def test_stats_count_real_requests(mesh: Orchestrator) -> None:
    """Requests and wakes in stats are those that were made."""
    mesh.must("evict", ID)
    before = numbers(as_json(mesh, "stats"))
    for _ in range(7):
        assert call(mesh.functions[0].port).ok
    wanted = before["requests"] + 7
    wait_until(lambda: numbers(as_json(mesh, "stats"))["requests"] == wanted, "7 requests more")
    assert numbers(as_json(mesh, "stats"))["wakes"] == before["wakes"] + 1


def numbers(stats: Any) -> dict[str, float]:
    """Return the numbers of the one function in stats, by their last name."""
    if isinstance(stats, list):
        return numbers(stats[0])
    if isinstance(stats, dict) and "functions" in stats:
        return numbers(stats["functions"])
    flat: dict[str, float] = {}
    for key, value in stats.items():
        if isinstance(value, dict):
            flat.update(numbers(value))
        elif isinstance(value, int | float):
            flat[key] = value
        elif isinstance(value, str) and value.isdigit():
            flat[key] = int(value)
    return flat


def test_evict_and_wake(mesh: Orchestrator) -> None:
    """Evict ends the running process; wake restores it before anyone calls."""
    mesh.must("evict", ID)
    assert mesh.contracts.state(ID) == "WARM_SNAPSHOT"
    mesh.must("wake", ID)
    mesh.wait_state(ID, "RUNNING")
    assert mesh.contracts.instance(ID).root_pid > 1
    assert call(mesh.functions[0].port).ok


def test_logs(mesh: Orchestrator) -> None:
    """Logs shows what the program printed; with -f it goes on until interrupted."""
    assert "plain: listening" in mesh.must("logs", ID).out
    with Terminal(mesh.command("logs", ID, "-f"), mesh.environment) as terminal:
        terminal.expect("plain: listening")
        assert terminal.child.poll() is None
        terminal.type(INTERRUPT)
        assert terminal.wait() in {0, 130}


@pytest.mark.parametrize("command", ["logs -f", "events -f", "stats -w"])
def test_an_interrupt_at_any_moment(mesh: Orchestrator, command: str) -> None:
    """Whatever a command that goes on is at, it ends with its status and without a word."""
    name, option = command.split()
    for number in range(INTERRUPTS):
        with subprocess.Popen(
            mesh.command(name, ID, option),
            env=mesh.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        ) as child:
            assert child.stdout is not None
            assert os.read(child.stdout.fileno(), 1)
            time.sleep(number * STEP_S)  # no wait for anything: another moment each time
            child.send_signal(signal.SIGINT)
            _, said = child.communicate(timeout=60)
            assert (child.returncode in {0, 130}, said) == (True, b"")


def test_deploy_and_delete(mesh: Orchestrator) -> None:
    """Deploy adds a function beside those that are there; delete takes it away."""
    function = Function("second", handler("keeper"))
    file = mesh.home / "second.yaml"
    file.write_text(yaml.safe_dump({"functions": [function.entry()]}))
    mesh.must("deploy", str(file), timeout_s=120)
    assert call(function.port).json()["socket_open"] is True
    assert mesh.contracts.deploy_state(ID) == "DEPLOYED"
    mesh.must("delete", "second")
    wait_until(lambda: call(function.port).error == "ECONNREFUSED", "the port is free")


def test_a_change_is_deployed_as_a_new_revision(mesh: Orchestrator) -> None:
    """Deploy of a changed declaration makes a new revision that serves in the old one's place."""
    function = Function("third", handler("plain"))
    file = mesh.home / "third.yaml"
    file.write_text(yaml.safe_dump({"functions": [function.entry()]}))
    mesh.must("deploy", str(file), timeout_s=120)
    first = call(function.port).json()
    function.keys["environment"] = {"COLOUR": "blue"}
    file.write_text(yaml.safe_dump({"functions": [function.entry()]}))
    mesh.must("deploy", str(file), timeout_s=120)
    assert call(function.port).json()["token"] != first["token"]
    assert mesh.contracts.function("third").serving_revision == 2
    mesh.must("delete", "third")
    wait_until(lambda: call(function.port).error == "ECONNREFUSED", "the port is free")


def test_errors_have_fixed_statuses(mesh: Orchestrator) -> None:
    """Each class of error has its exit status, and says reason, message and remedy."""
    missing = mesh.ctl("describe", "nobody")
    assert missing.status == NOT_FOUND
    assert "FUNCTION_NOT_FOUND" in missing.err
    assert mesh.ctl("evict", "nobody").status == NOT_FOUND
    assert mesh.ctl("delete", "nobody").status == NOT_FOUND
    assert mesh.ctl("no-such-command").status == USAGE
    assert mesh.ctl("describe").status == USAGE
    told = json.loads(mesh.ctl("-o", "json", "describe", "nobody").err)
    assert "FUNCTION_NOT_FOUND" in json.dumps(told)


def test_every_error_of_a_file_is_reported(mesh: Orchestrator) -> None:
    """Validate reports all errors at once, each with file, line and column."""
    file = mesh.home / "wrong.yaml"
    file.write_text(
        "functions:\n"
        "  - id: 'not an id'\n"
        "    memory_limit_mb: 0\n"
        "    trigger_port: 99999\n"
        f"    handler_path: {handler('plain')}\n"
        "    surprise: 1\n"
    )
    done = mesh.ctl("validate", str(file))
    assert done.status == INVALID
    assert "CONFIG_INVALID" in done.err
    for line in (2, 3, 4, 6):
        assert f"wrong.yaml:{line}:" in done.err, done.err
    assert mesh.ctl("validate", str(mesh.config)).status == 0


def test_without_services() -> None:
    """Commands that need a service say that it is not there, and how to start it."""
    with unchanged_host(), Orchestrator([Function(ID, handler("plain"))]) as mesh:
        done = mesh.ctl("list")
        assert done.status == UNAVAILABLE
        assert "PEER_UNREACHABLE" in done.err
        assert "aetherctl" in done.err


def test_up_twice_changes_nothing(mesh: Orchestrator) -> None:
    """Up of what is up already succeeds and restarts nothing."""
    supervisor = mesh.living_process("supervisor")
    revision = mesh.contracts.function(ID).revision
    mesh.must("up", timeout_s=120)
    assert mesh.living_process("supervisor") == supervisor
    assert mesh.contracts.function(ID).revision == revision
    assert call(mesh.functions[0].port).ok


def test_help_names_every_command(mesh: Orchestrator) -> None:
    """--help lists the commands, and the alias is the same program."""
    shown = mesh.ctl("--help")
    assert shown.status == 0
    assert all(name in shown.out for name in (*COMMANDS, *MORE_COMMANDS))
    assert mesh.ctl("--version").out.startswith("aetherctl ")


def test_doctor_finds_a_fit_host(mesh: Orchestrator) -> None:
    """Doctor passes where up works."""
    assert mesh.ctl("doctor", timeout_s=120).status == 0


def test_udp_on_a_trigger_port_is_free(mesh: Orchestrator) -> None:
    """Only TCP is reserved."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as server:
        server.bind(("127.0.0.1", mesh.functions[0].port))
        assert server.getsockname()[1] == mesh.functions[0].port
