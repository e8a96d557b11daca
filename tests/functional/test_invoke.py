# SPDX-License-Identifier: Apache-2.0
"""Calls through shared memory, from ``aetherctl invoke`` to the handler and back."""

from __future__ import annotations

import json
import subprocess
from collections import Counter
from contextlib import suppress
from functools import partial
from typing import TYPE_CHECKING

import pytest

from aetherless.ipc.v1 import ipc_service_pb2
from aetherless_common.errors import AetherlessError
from framework.calls import Callers, called, crowd, invoke
from framework.clients import call
from framework.guard import unchanged_host
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import Process, wait_until
from framework.upheaval import redeclare, redeploy, wait_serving

if TYPE_CHECKING:
    from collections.abc import Iterator

# Serves its channel alone; and one that listens on its port as well.
ID, BOTH = "called", "both"
CROWD = 200


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve two functions with channels for all tests of this module."""
    with unchanged_host(), Orchestrator() as running:
        called(running, ID, timeout_ms=20000, may_call=[BOTH])
        called(running, BOTH, warmup="http", environment={"HTTP": "1"})
        yield running.up()


def refused(mesh: Orchestrator, method: str, data: bytes = b"", timeout_s: float = 0) -> str:
    """Return the reason that a call fails for."""
    with pytest.raises(AetherlessError) as raised:
        invoke(mesh, ID, data, method, timeout_s)
    return raised.value.reason


def piped(mesh: Orchestrator, given: bytes, *arguments: str) -> bytes:
    """Return what ``aetherctl invoke`` writes that is given bytes on its standard input."""
    done = subprocess.run(
        mesh.command("invoke", ID, *arguments),
        env=mesh.environment,
        input=given,
        stdout=subprocess.PIPE,
        timeout=60,
        check=True,
    )
    return done.stdout


def executions(mesh: Orchestrator, function: str = ID) -> Counter[str]:
    """Return how often each call was worked on, as the handler wrote it down."""
    log = next(mesh.settings.state_dir.glob(f"*log*/{function}.log")).read_text()
    return Counter(
        line.removeprefix("did ") for line in log.splitlines() if line.startswith("did ")
    )


def test_an_armed_function_is_woken(mesh: Orchestrator) -> None:
    """No packet comes: the call has it restored, and is answered; the next finds it running."""
    mesh.evict(ID)
    first, second = invoke(mesh, ID, b"one"), invoke(mesh, ID, b"two")
    assert (first.data, first.woke, first.attempts) == (b"one", True, 1)
    assert (second.data, second.woke) == (b"two", False)
    mesh.wait_state(ID, "RUNNING")


def test_a_payload_of_any_size(mesh: Orchestrator) -> None:
    """Nothing, one byte, and nearly a quarter of the ring come back as they were."""
    for data in (b"", b"\0", bytes(range(256)) * 4000):
        assert invoke(mesh, ID, data).data == data
    assert refused(mesh, "", bytes(2 << 20)) == "PAYLOAD_TOO_LARGE"


def test_the_command(mesh: Orchestrator) -> None:
    """It writes the answer's bytes and nothing else; for programs it tells more."""
    assert mesh.must("invoke", ID, "--data", "grüße").out == "grüße"
    told = json.loads(mesh.must("invoke", ID, "--data", "x", "-o", "json").out)
    assert (told["function"], told["data"], told["attempts"]) == (ID, "x", 1)
    file = mesh.home / "bytes"
    file.write_bytes(b"\x00\xff\n")
    assert piped(mesh, b"\xfe", "-") == b"\xfe"
    assert piped(mesh, b"", "--file", str(file)) == b"\x00\xff\n"
    described = mesh.must("describe", ID).out
    assert "calls go to" in described
    assert f"{ID}-r" in described


def test_a_check_serves_a_channel_of_its_own(mesh: Orchestrator) -> None:
    """A program that serves its channel alone passes, and its check leaves no channel."""
    told = mesh.must("check", str(mesh.config), "--id", ID, "-o", "json", timeout_s=UP_TIMEOUT_S)
    (checked,) = json.loads(told.out)["checks"]
    assert checked["verdict"] in {"fine", "warnings"}
    channels = mesh.contracts.stub("ipc").ListChannels(ipc_service_pb2.ListChannelsRequest())
    assert {each.name for each in channels.channels} == {f"channels/{ID}", f"channels/{BOTH}"}


def test_the_commands_errors(mesh: Orchestrator) -> None:
    """Typed, on standard error, with the status of their class."""
    failed = mesh.ctl("invoke", ID, "--method", "fail", "--data", "no luck")
    assert (failed.status, failed.out) == (6, "")
    assert "HANDLER_FAILED" in failed.err
    assert "no luck" in failed.err
    assert mesh.ctl("invoke", ID, "--method", "unknown").status == 4
    assert mesh.ctl("invoke", "nobody").status == 4
    late = mesh.ctl("invoke", ID, "--method", "slow", "--data", "30", "--timeout", "0.3")
    assert late.status == 12
    assert "INVOCATION_TIMEOUT" in late.err
    assert mesh.ctl("invoke", ID, "--data", "a", "-").status == 2


def test_describe_without_the_ipc_service(mesh: Orchestrator) -> None:
    """All but the channel is shown, and then why that is not."""
    supervisor = mesh.living_process("supervisor")
    supervisor.stop()
    try:
        mesh.kill("ipc")
        shown = mesh.ctl("describe", ID)
        told = mesh.ctl("-o", "json", "describe", ID)
    finally:
        supervisor.go_on()
    mesh.wait_serving()
    assert (shown.status, told.status) == (10, 10)
    assert f"instance {ID}-r" in shown.out
    assert "calls go to" not in shown.out
    assert "PEER_UNREACHABLE" in shown.err
    data = json.loads(told.out)
    assert (data["channel"], data["function"]["spec"]["function_id"]) == (None, ID)
    assert "calls go to" in mesh.must("describe", ID).out


def test_what_a_handler_refuses(mesh: Orchestrator) -> None:
    """Each way to fail has its reason, and the function goes on."""
    assert refused(mesh, "fail", b"no luck") == "HANDLER_FAILED"
    assert refused(mesh, "unknown") == "METHOD_NOT_FOUND"
    assert refused(mesh, "slow", b"30", 0.3) == "INVOCATION_TIMEOUT"
    assert invoke(mesh, ID, b"x").data == b"x"


def test_a_port_beside_the_channel(mesh: Orchestrator) -> None:
    """Whoever comes first wakes it; both are answered by the same process."""
    mesh.evict(BOTH)
    by_call = invoke(mesh, BOTH, b"", "process").data.split()[0]
    assert call(mesh.functions[1].port).body == by_call
    mesh.evict(BOTH)
    answer = call(mesh.functions[1].port)
    assert answer.ok
    assert invoke(mesh, BOTH, b"", "process").data.split()[0] == answer.body


def test_a_crowd_of_first_calls(mesh: Orchestrator) -> None:
    """One restore, and each of many calls has its own answer."""
    mesh.evict(ID)
    before = mesh.contracts.instance(ID).wakes
    assert crowd(mesh, ID, CROWD) == []
    assert mesh.contracts.instance(ID).wakes == before + 1


def test_functions_call_each_other(mesh: Orchestrator) -> None:
    """One that sleeps is woken; what may_call does not name is refused, and says why."""
    mesh.evict(BOTH)
    assert invoke(mesh, ID, f"{BOTH}/process".encode(), "relay").data.split()[0].isdigit()
    mesh.wait_state(BOTH, "RUNNING")
    assert invoke(mesh, ID, f"{BOTH}/fail no luck".encode(), "relay").data == b"HANDLER_FAILED"
    assert invoke(mesh, ID, f"{ID} x".encode(), "relay").data == b"CALL_NOT_ALLOWED"
    assert invoke(mesh, BOTH, f"{ID} x".encode(), "relay").data == b"CALL_NOT_ALLOWED"


def test_an_idle_function_sleeps_and_wakes(mesh: Orchestrator) -> None:
    """Calls count as use: it is not evicted under one that takes longer than its idle time."""
    name = "restless"
    deploy(mesh, called(mesh, name, idle_after_ms=1500))
    assert invoke(mesh, name, b"4", "slow").attempts == 1
    wait_until(lambda: mesh.contracts.state(name) == "WARM_SNAPSHOT", "it is idle", 30)
    assert invoke(mesh, name, b"x").woke


def test_a_handler_that_dies(mesh: Orchestrator) -> None:
    """The call is made again, until its time is over; the next call finds a new process."""
    assert refused(mesh, "die", timeout_s=3.0) in {"INVOCATION_TIMEOUT", "PEER_GONE"}
    assert invoke(mesh, ID, b"x").data == b"x"


def test_an_instance_is_replaced_under_calls(mesh: Orchestrator) -> None:
    """Its processes are killed, then its sandbox's init: calls wait for what comes in its place."""

    def victim(turn: int) -> Process | None:
        for each in mesh.contracts.instances():
            if each.workload.function_id == BOTH and each.root_pid > 1:
                with suppress(ProcessLookupError):  # what is told is a moment old
                    return Process.of((each.root_pid, each.init_pid)[turn % 2])
        return None

    with Callers(mesh, BOTH) as callers:
        for turn in range(8):
            callers.go_on(10)
            found = wait_until(partial(victim, turn), "it runs")
            assert found
            found.kill()
        callers.go_on()
    assert not callers.wrong
    assert set(Counter(callers.answered).values()) == {1}


def test_redeploys_under_calls(mesh: Orchestrator) -> None:
    """No call is lost, and none is worked on twice; the new revision answers afterwards."""
    with Callers(mesh, ID) as callers:
        for number in range(2):
            redeploy(mesh, ID, number)
            callers.go_on()
    assert callers.wrong == []
    done = executions(mesh)
    assert [name for name in callers.answered if done[name] != 1] == []
    assert invoke(mesh, ID, b"", "process").data.split()[1] == b"1"


def test_a_rollback_under_calls(mesh: Orchestrator) -> None:
    """Calls go to the earlier revision, and none is lost on the way."""
    redeploy(mesh, ID, 7)
    with Callers(mesh, ID) as callers:
        revision = mesh.contracts.roll_back(ID)
        wait_until(
            lambda: mesh.contracts.function(ID).serving_revision == revision, "it is back", 60
        )
        callers.go_on()
    assert callers.wrong == []
    assert invoke(mesh, ID, b"", "process").data.split()[1:] != [b"7"]


def test_evictions_under_calls(mesh: Orchestrator) -> None:
    """Each call is answered, by the old process or by a new one."""
    with Callers(mesh, ID) as callers:
        for _ in range(3):
            mesh.ctl("evict", ID)
            callers.go_on(20)
    assert callers.wrong == []


@pytest.mark.parametrize("service", ["ipc", "snapshotter", "registry"])
def test_a_service_dies_between_calls(mesh: Orchestrator, service: str) -> None:
    """Once it is back, an armed function is woken by a call as before."""
    mesh.evict(ID)
    mesh.kill_and_wait(service)
    assert invoke(mesh, ID, b"x").data == b"x"


@pytest.mark.parametrize("service", ["ipc", "snapshotter"])
def test_a_service_dies_during_calls(mesh: Orchestrator, service: str) -> None:
    """The caller is told of what was cut off, asks again, and is answered."""
    with Callers(mesh, ID, patient=True) as callers:
        callers.go_on()
        mesh.kill_and_wait(service)
        callers.go_on()
    assert callers.wrong == []
    if service == "snapshotter":  # it has no part in the call of a function that runs
        assert callers.repeated == set()


@pytest.mark.parametrize("step", ["create-golden", "create-snapshot", "arm-instance"])
@pytest.mark.parametrize("service", ["ipc", "snapshotter", "registry"])
def test_a_service_dies_within_a_redeploy(mesh: Orchestrator, service: str, step: str) -> None:
    """Killed at a step that needs the channel, or beside it: calls and the deploy go on."""
    with Callers(mesh, ID, patient=True) as callers:
        progress = mesh.contracts.watch_progress()
        revision = redeclare(mesh, ID, hash((service, step)))
        progress.reach(ID, step, "STARTED")
        mesh.kill_and_wait(service)
        wait_serving(mesh, ID, revision)
        callers.go_on()
    assert callers.wrong == []


def test_a_channel_goes_with_its_function(mesh: Orchestrator) -> None:
    """Declared without ipc it can't be called so any more, and with it again it can."""
    name = "fickle"
    fickle = called(mesh, name, warmup="http", environment={"HTTP": "1"})
    deploy(mesh, fickle)
    assert invoke(mesh, name, b"x").data == b"x"
    fickle.keys["ipc"] = False
    mesh.write_config()
    deploy(mesh, fickle)
    wait_until(lambda: reason_of(mesh, name) == "CHANNEL_NOT_FOUND", "its channel goes", 60)
    assert call(fickle.port).ok
    fickle.keys["ipc"] = True
    mesh.write_config()
    deploy(mesh, fickle)
    assert invoke(mesh, name, b"x").data == b"x"


def test_who_keeps_a_closed_channel_is_not_checkpointed(mesh: Orchestrator) -> None:
    """Its deploy fails and says which process, and nothing of it is left to be called."""
    name = "clinging"
    clinging = called(mesh, name, environment={"KEEP": "1"})
    done = mesh.ctl("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    assert done.status == 6
    assert "NOT_CHECKPOINTABLE" in done.err
    assert "keeps the region" in done.err
    wait_until(lambda: reason_of(mesh, name) == "CHANNEL_NOT_FOUND", "its channel goes", 60)
    mesh.must("delete", name)
    mesh.functions.remove(clinging)
    mesh.write_config()


def test_no_function_attaches_to_anothers_channel(mesh: Orchestrator) -> None:
    """Even one that sees the side socket: the kernel says whose process it is."""
    folder = mesh.contracts.instance(BOTH).channel_folder
    deploy(mesh, called(mesh, "spy", mounts=[folder]))
    said = invoke(mesh, "spy", f"{folder}/channel.sock".encode(), "knock").data
    assert said == b"error reason=PEER_NOT_ALLOWED"


def reason_of(mesh: Orchestrator, function: str) -> str:
    """Return the reason that a call fails for; empty when it does not."""
    try:
        invoke(mesh, function)
    except AetherlessError as error:
        return error.reason
    return ""


def deploy(mesh: Orchestrator, function: Function) -> None:
    """Deploy one more function, which was added to the configuration."""
    assert function in mesh.functions
    mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
