# SPDX-License-Identifier: Apache-2.0
"""Deaths along a pipeline: of stages at any moment, of the service; exactly one answer a run."""

from __future__ import annotations

import mmap
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from aetherless_common.server import serving
from aetherless_ring.layout import PAGE, Direction, Layout
from framework.processes import wait_until

from .staging import CHAIN, DIAMOND, ONCE, Stages, declared

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
SHORTEST = 64  # bytes that a record takes at least
ANSWERS = {"chain": "{0} a b c", "diamond": "[{0} a c|{0} a b] d"}
SHAPES = {"chain": CHAIN, "diamond": DIAMOND}


@pytest.fixture
def stages(
    run_service: Any, settings: Settings, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> Iterator[Stages]:
    """Return a maker of stages."""
    made = Stages(stub, serving_peer, tmp_path)  # type: ignore[abstract]  # it wakes, no more
    with serving(settings, "snapshotter", made), run_service():
        yield made


@pytest.mark.parametrize("name", list("abc"))
def test_a_record_is_handed_out_again(stages: Stages, name: str) -> None:
    """With a higher attempt, to the next process of the stage that died with it."""
    stages.up(CHAIN)
    assert stages.run(f"die@{name}") == f"die@{name} a b c"
    assert stages.wakes == len(CHAIN) + 1
    told = [line.split() for line in stages.book.read_text().splitlines()]
    assert [attempt for stage, _, attempt in told if stage == name] == ["1", "2"]


@pytest.mark.parametrize("name", list("abc"))
def test_at_most_once_says_which_stage_was_lost(stages: Stages, name: str) -> None:
    """At once, without waiting for the deadline; nothing is worked on twice."""
    stages.up(CHAIN, delivery=ONCE)
    with pytest.raises(errors.Unavailable) as caught:
        stages.run(f"end@{name}")
    assert caught.value.reason == "STAGE_LOST"
    assert (caught.value.metadata["pipeline"], caught.value.metadata["stage"]) == ("p", name)
    assert stages.run("x") == "x a b c"
    assert all(count == 1 for count in stages.executions().values())


def test_stages_of_two_pipelines_start_again(stages: Stages) -> None:
    """The next process of each is given the edges of both, after it heard what it is."""
    stages.up(CHAIN)
    second = pb.CreatePipelineRequest(pipeline_id="q", pipeline=declared(CHAIN, "q", ONCE))
    stages.stub.CreatePipeline(second)
    for name in CHAIN:
        stages.kill(name)
    for pipeline in "pq":
        assert stages.run("x", name=pipeline) == "x a b c"


def test_a_part_that_waits_is_lost_with_its_stage(stages: Stages) -> None:
    """At most once: who is replaced before the other parts come had taken it to itself."""
    stages.up(DIAMOND, delivery=ONCE)
    # SAFETY: a child that this test started and has not waited for.
    os.kill(stages.pid("b"), signal.SIGSTOP)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(stages.outcome, "x")
        wait_until(partial(has_taken, stages, "c", "d"), "d has the part of c")
        stages.admit("d", 2)
        stages.wake("d")
        assert run.result() == "STAGE_LOST"
    os.kill(stages.pid("b"), signal.SIGCONT)
    assert stages.run("x") == "[x a c|x a b] d"
    assert all(count == 1 for count in stages.executions().values())


def right(shape: str, answers: list[str]) -> list[str]:
    """Return what the answers of a burst should be."""
    return [ANSWERS[shape].format(f"x{number}") for number in range(len(answers))]


@pytest.mark.parametrize("shape", ["chain", "diamond"])
def test_at_least_once_loses_none(stages: Stages, shape: str) -> None:
    """Stages are killed all the while: every run is answered, and rightly."""
    stages.up(SHAPES[shape])
    answers = stages.burst_under_kills(list(SHAPES[shape]))
    assert answers == right(shape, answers)
    stats = stages.get().stats
    assert (stats.runs, stats.succeeded, stats.in_flight) == (len(answers), len(answers), 0)


@pytest.mark.parametrize("shape", ["chain", "diamond"])
def test_at_most_once_reports_what_is_lost(stages: Stages, shape: str) -> None:
    """Stages are killed all the while: a run is answered rightly, or lost; none is done twice."""
    stages.up(SHAPES[shape], delivery=ONCE)
    answers = stages.burst_under_kills(list(SHAPES[shape]))
    wrong = [
        (got, wanted)
        for got, wanted in zip(answers, right(shape, answers), strict=True)
        if got not in (wanted, "STAGE_LOST")
    ]
    assert not wrong
    assert all(count == 1 for count in stages.executions().values())


def test_the_service_is_killed(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Runs under way end with an error; the next service has the pipeline, and the stages it."""
    stages = Stages(stub, serving_peer, tmp_path)  # type: ignore[abstract]  # it wakes, no more
    with run_service() as service:
        stages.up(CHAIN)
        assert stages.run("x") == "x a b c"
        service.kill()
        service.wait(20)
    with run_service():
        wait_until(lambda: stages.get().name == "pipelines/p", "the pipeline is there")
        stages.wait_attached()
        assert stages.run("y") == "y a b c"
        assert stages.get().stats.runs == 1


def test_a_damaged_edge_is_replaced(stages: Stages) -> None:
    """The runs that are under way end with it; the next go through a new one."""
    stages.up(CHAIN)
    with ThreadPoolExecutor(2) as pool:
        runs = []
        for count, data in enumerate(("hold@b", "y"), 1):
            runs.append(pool.submit(stages.outcome, data))
            wait_until(partial(waits, stages, count * SHORTEST), "records wait")
        damage(stages.pid("b"), "aether-p/a/b")
        stages.let_go()
        first, second = (run.result() for run in runs)
    assert first in ("hold@b a b c", "RING_CORRUPT")  # it may end before the damage is met
    assert second == "RING_CORRUPT"
    assert stages.run("z") == "z a b c"
    assert stages.wakes == len(CHAIN)


def waits(stages: Stages, least: int) -> bool:
    """Tell whether so many bytes between the first two stages are not worked off."""
    edge = stages.get().edges[0]
    return bool(edge.produced_bytes - edge.consumed_bytes >= least)


def has_taken(stages: Stages, source: str, target: str) -> bool:
    """Tell whether something between two stages was consumed."""
    (edge,) = (
        each for each in stages.get().edges if (getattr(each, "from"), each.to) == (source, target)
    )
    return bool(edge.consumed_bytes)


def damage(pid: int, name: str) -> None:
    """Write over all records in a region that a process has, from outside."""
    found = [path for path in Path(f"/proc/{pid}/fd").iterdir() if name in str(path.readlink())]
    with found[0].open("r+b") as file, mmap.mmap(file.fileno(), 0) as region:
        layout = Layout((len(region) - 3 * PAGE) // 2)
        begin = layout.data_offset(Direction.TO_PEER)
        region[begin : begin + layout.ring_bytes] = b"\xff" * layout.ring_bytes
