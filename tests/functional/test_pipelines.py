# SPDX-License-Identifier: Apache-2.0
"""Pipelines of checkpointed functions: woken, evicted, redeployed and killed under runs."""

from __future__ import annotations

import json
from collections import Counter
from typing import TYPE_CHECKING

import grpc
import pytest

from aetherless.ipc.v1 import ipc_service_pb2
from aetherless_common.errors import AetherlessError
from aetherless_common.status import from_rpc_error
from framework.calls import CALL_S, PASSING, Callers, called
from framework.guard import unchanged_host
from framework.mesh import REPOSITORY, UP_TIMEOUT_S, Orchestrator
from framework.processes import wait_until
from framework.upheaval import redeploy

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAM = REPOSITORY / "tests" / "programs" / "staged" / "staged.py"
STAGES = ("first", "left", "right", "last")
PIPELINE = {
    "id": "words",
    "stages": [
        {"function": "first"},
        {"function": "left"},
        {"function": "right", "from": ["first"]},
        {"function": "last", "from": ["right", "left"]},
    ],
}
CHAIN = {"id": "chain", "delivery": "at-most-once", "stages": [{"function": "first"}]}


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve four functions that two pipelines join."""
    with unchanged_host(), Orchestrator() as running:
        for name in STAGES:
            called(running, name, PROGRAM)
        running.pipelines = [PIPELINE, CHAIN]
        running.write_config()
        yield running.up()


def run(mesh: Orchestrator, data: str, pipeline: str = "words", timeout_s: float = 30) -> str:
    """Run a pipeline.

    Raises:
        AetherlessError: as the ipc service answered.
    """
    request = ipc_service_pb2.InvokeRequest(
        pipeline=f"pipelines/{pipeline}", data=data.encode(), wait_for_room=True
    )
    request.timeout.FromNanoseconds(round(timeout_s * 1e9))
    try:
        answer = mesh.contracts.stub("ipc").Invoke(request, timeout=CALL_S, wait_for_ready=True)
    except grpc.RpcError as error:
        raise from_rpc_error(error, "ipc", "Invoke") from error
    return bytes(answer.data).decode()


def right(data: str) -> str:
    """Return what the pipeline makes of data."""
    return f"[{data} first right|{data} first left] last"


def executions(mesh: Orchestrator, function: str) -> Counter[str]:
    """Return how often a stage worked on each run, as it wrote it down."""
    log = next(mesh.settings.state_dir.glob(f"*log*/{function}.log")).read_text()
    return Counter(line for line in log.splitlines() if line.startswith("did "))


class Runners(Callers):
    """Clients that run the pipeline all the time, each with other data. A context manager."""

    def __init__(self, mesh: Orchestrator) -> None:
        super().__init__(mesh, "words")

    def _call(self, name: str) -> None:
        """Run the pipeline once, and note how it ended."""
        try:
            got = run(self._mesh, name, self._function)
        except AetherlessError as error:
            self.wrong.append(f"{name}: {error}")
            return
        if got == right(name):
            self.answered.append(name)
        else:
            self.wrong.append(f"{name}: {got}")


def test_armed_stages_are_woken(mesh: Orchestrator) -> None:
    """No packet comes: one run has all of them restored."""
    for name in STAGES:
        mesh.evict(name)
    assert run(mesh, "x") == right("x")
    for name in STAGES:
        mesh.wait_state(name, "RUNNING")


def test_the_commands(mesh: Orchestrator) -> None:
    """What users see of pipelines, and of what goes through them."""
    assert mesh.must("pipeline", "run", "words", "--data", "x").out == right("x")
    listed = json.loads(mesh.must("pipeline", "list", "-o", "json").out)["pipelines"]
    assert [each["name"] for each in listed] == ["pipelines/chain", "pipelines/words"]
    described = mesh.must("pipeline", "describe", "words").out
    assert "at-least-once" in described
    failed = mesh.ctl("pipeline", "run", "words", "--data", "fail@left", "-o", "json")
    error = json.loads(failed.err)["error"]
    assert (failed.status, error["reason"]) == (6, "STAGE_FAILED")
    assert error["metadata"]["stage"] == "left"
    (told,) = mesh.must("pipeline", "top", "words", "-n", "1", "-o", "json").out.splitlines()
    rows = {row["id"]: row for row in json.loads(told)["stages"]}
    assert rows["words/left"]["failed"] >= 1
    assert mesh.ctl("pipeline", "run", "nobody").status == 4


def test_a_function_of_a_pipeline_stays(mesh: Orchestrator) -> None:
    """It is not deleted under a pipeline; a file without the pipeline takes that away first."""
    refused = mesh.ctl("delete", "left")
    assert "FUNCTION_IN_USE" in refused.err
    mesh.pipelines = [CHAIN]
    mesh.write_config()
    plan = mesh.must("deploy", "--dry-run", "--prune", str(mesh.config)).out
    assert "pipeline words: delete" in plan
    mesh.must("deploy", "--prune", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    wait_until(lambda: mesh.ctl("pipeline", "describe", "words").status == 4, "it is gone")
    mesh.pipelines = [PIPELINE, CHAIN]
    mesh.write_config()
    told = mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S).out
    assert "pipeline words: create" in told
    wait_until(lambda: mesh.ctl("pipeline", "describe", "words").status == 0, "it is back")
    assert run(mesh, "x") == right("x")


def test_a_stage_that_dies(mesh: Orchestrator) -> None:
    """Its record is handed to the next process; at most once, the run is reported as lost."""
    assert run(mesh, "die@left") == right("die@left")
    assert run(mesh, "die@last") == right("die@last")
    with pytest.raises(AetherlessError) as lost:
        run(mesh, "die@first", "chain")
    assert (lost.value.reason, lost.value.metadata["stage"]) == ("STAGE_LOST", "first")
    assert run(mesh, "x", "chain") == "x first"


def test_evictions_under_runs(mesh: Orchestrator) -> None:
    """Every run is answered; stages finish what they work on before they are evicted."""
    with Runners(mesh) as runners:
        for name in STAGES * 2:
            mesh.ctl("evict", name)  # refused while calls are in flight for too long
            runners.go_on(30)
    assert runners.wrong == []


def test_redeploys_under_runs(mesh: Orchestrator) -> None:
    """Every run is answered, and each stage worked on it once."""
    before = {name: set(executions(mesh, name)) for name in STAGES}
    with Runners(mesh) as runners:
        for number, name in enumerate(STAGES):
            redeploy(mesh, name, number)
            runners.go_on(30)
    assert runners.wrong == []
    for name in STAGES:
        twice = [each for each, count in executions(mesh, name).items() if count > 1]
        assert set(twice) <= before[name]


def test_the_service_is_killed(mesh: Orchestrator) -> None:
    """Runs end with an error; when it is back the pipeline is, and its stages attach again."""
    assert run(mesh, "x") == right("x")
    mesh.kill_and_wait("ipc")
    wait_until(lambda: passes(mesh), "it runs again", CALL_S)


def passes(mesh: Orchestrator) -> bool:
    """Tell whether a run is answered."""
    try:
        return run(mesh, "y") == right("y")
    except AetherlessError as error:
        if error.reason in {*PASSING, "CHANNEL_NOT_FOUND", "CHANNEL_NOT_READY"}:
            return False
        raise
