# SPDX-License-Identifier: Apache-2.0
"""Pipelines of real stages: results, failures, back pressure, and what they are told to be."""

from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from aetherless_common.server import serving
from framework.processes import wait_until

from .asking import detach, get
from .staging import CHAIN, DIAMOND, ONCE, Stages, declared

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
BIG = "y" * 12_000


@pytest.fixture
def stages(
    run_service: Any, settings: Settings, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> Iterator[Stages]:
    """Return a maker of stages; the edges have the smallest rings."""
    settings.replace(shm_buffer_size=1 << 16).write()
    made = Stages(stub, serving_peer, tmp_path)  # type: ignore[abstract]  # it wakes, no more
    with serving(settings, "snapshotter", made), run_service():
        yield made


def refused(stages: Stages, data: str, timeout_s: float = 20.0) -> errors.AetherlessError:
    """Return the error that a run ends with."""
    with pytest.raises(errors.AetherlessError) as caught:
        stages.run(data, timeout_s)
    return caught.value


def test_a_chain(stages: Stages) -> None:
    """Each stage works on what the one before made of it; everything is counted."""
    stages.up(CHAIN, c="loud")
    assert stages.run("x") == "X A B"
    assert stages.run("") == " A B"
    assert all(count == 1 for count in stages.executions().values())
    told = stages.get()
    assert (told.stats.runs, told.stats.succeeded, told.stats.in_flight) == (2, 2, 0)
    assert (told.stats.request_bytes, told.stats.response_bytes) == (1, 9)
    assert [each.records for each in told.stages] == [2, 2, 2]
    assert [(each.has_producer, each.has_consumer) for each in told.edges] == [(True, True)] * 2
    wait_until(
        lambda: all(each.produced_bytes == each.consumed_bytes for each in stages.get().edges),
        "the records are let go of",
    )


def test_one_stage(stages: Stages) -> None:
    """Is first and last at once."""
    stages.up({"a": ""})
    assert stages.run("x") == "x a"
    assert refused(stages, "fail@a").reason == "STAGE_FAILED"


def test_fan_out_and_fan_in(stages: Stages) -> None:
    """Both branches have the same data; the last has their results in the declared order."""
    stages.up(DIAMOND)
    assert stages.run("x") == "[x a c|x a b] d"
    assert sorted(stages.burst(range(100))) == sorted(f"[x{n} a c|x{n} a b] d" for n in range(100))
    assert all(count == 1 for count in stages.executions().values())


def test_a_failure_names_its_stage(stages: Stages) -> None:
    """Also that of a branch; the other's part is dropped, and the next runs are as before."""
    stages.up(DIAMOND)
    for stage in "abcd":
        error = refused(stages, f"fail@{stage}")
        assert (error.reason, error.code) == ("STAGE_FAILED", "FAILED_PRECONDITION")
        assert error.metadata["stage"] == stage
        assert error.metadata["handlerMessage"] == "ValueError: not like this"
    assert stages.run("x") == "[x a c|x a b] d"
    assert [each.failed for each in stages.get().stages] == [1, 1, 1, 1]
    assert stages.get().stats.failed == 4
    calls = get(stages.stub, "a").stats
    assert (calls.calls, calls.succeeded, calls.failed, calls.cancelled) == (5, 4, 1, 0)
    wait_until(
        lambda: all(each.produced_bytes == each.consumed_bytes for each in stages.get().edges),
        "parts that nobody needs are let go of",
    )


def test_a_method_that_a_stage_does_not_have(stages: Stages) -> None:
    """Is the stage's failure."""
    stages.up(CHAIN, b="none")
    error = refused(stages, "x")
    assert (error.reason, error.metadata["stage"]) == ("STAGE_FAILED", "b")
    assert "no method 'none'" in error.metadata["handlerMessage"]


def test_a_result_that_does_not_fit(stages: Stages) -> None:
    """Fails where it was made; what the first stage can't be given is refused at once."""
    stages.up(CHAIN)
    limit = (1 << 14) - 24 - len("p/a")
    error = refused(stages, "y" * (limit - 1))
    assert (error.reason, error.metadata["stage"]) == ("STAGE_FAILED", "a")
    assert refused(stages, "y" * (limit + 1)).reason == "PAYLOAD_TOO_LARGE"


def test_deadlines(stages: Stages) -> None:
    """A run ends at its time wherever it is; what comes later of it is dropped."""
    stages.up(CHAIN)
    error = refused(stages, "nap@b", timeout_s=0.2)
    assert error.reason == "INVOCATION_TIMEOUT"
    assert (error.metadata["name"], error.metadata["timeoutMs"]) == ("p", "200")
    assert error.message == "pipeline p did not answer within 200 ms; delivered once"
    assert stages.run("x") == "x a b c"
    stats = stages.get().stats
    assert (stats.timed_out, stats.failed, stats.in_flight) == (1, 1, 0)


def test_back_pressure(stages: Stages) -> None:
    """A slow last stage makes the ones before wait, not lose; their rings hold five records."""
    stages.up(CHAIN)
    with ThreadPoolExecutor(24) as pool:
        slow = [pool.submit(stages.run, f"nap@c {BIG}") for _ in range(2)]
        many = [pool.submit(stages.run, BIG) for _ in range(40)]
        assert [each.result() for each in slow] == [f"nap@c {BIG} a b c"] * 2
        assert [each.result() for each in many] == [f"{BIG} a b c"] * 40
    assert all(count == 1 for count in stages.executions().values())


def test_many_of_one_stream(stages: Stages) -> None:
    """Runs and their errors come in any order, each once."""
    stages.up(CHAIN)

    def requests() -> Iterator[pb.InvokeStreamRequest]:
        for number in range(200):
            data = b"fail@b" if number % 10 == 9 else b"x"
            call = pb.InvokeRequest(pipeline="pipelines/p", data=data, wait_for_room=True)
            yield pb.InvokeStreamRequest(call_id=number, call=call)

    answers = list(stages.stub.InvokeStream(requests()))
    assert sorted(each.call_id for each in answers) == list(range(200))
    assert sum(each.response.data == b"x a b c" for each in answers) == 180


def test_a_stage_that_is_detached_lets_go_first(stages: Stages) -> None:
    """What it works on is finished, what waits stays for its next process."""
    stages.up(CHAIN)
    with ThreadPoolExecutor(4) as pool:
        runs = [pool.submit(stages.run, "hold@b") for _ in range(3)]
        wait_until(lambda: stages.get().stats.in_flight == 3, "the runs are under way")
        wait_until(lambda: "b" in {name for name, _ in stages.executions()}, "it works on one")
        detached = pool.submit(detach, stages.stub, "b-r1-0", "b")
        stages.let_go()
        detached.result()
        stages.kill("b")
        stages.admit("b")
        assert [each.result() for each in runs] == ["hold@b a b c"] * 3
    assert all(count == 1 for count in stages.executions().values())


def test_instances_are_replaced_under_load(stages: Stages) -> None:
    """A redeploy of each stage in turn: every run is answered, and worked on once."""
    stages.up(CHAIN)
    with ThreadPoolExecutor(1) as pool:
        many = pool.submit(stages.burst, range(3000), 4)
        for revision in (2, 3):
            for name in CHAIN:
                stages.admit(name, revision)
                stages.wake(name)
                detach(stages.stub, f"{name}-r{revision - 1}-0", name)
        assert many.result() == [f"x{number} a b c" for number in range(3000)]
    assert all(count == 1 for count in stages.executions().values())


def test_declarations(stages: Stages) -> None:
    """Create, repeat, get, list, change, delete; each refusal has its reason."""
    stub = stages.stub
    create = pb.CreatePipelineRequest(pipeline_id="p", pipeline=declared(CHAIN))
    made = stub.CreatePipeline(create).pipeline
    assert stub.CreatePipeline(create).pipeline == made
    assert [getattr(each, "from") for each in made.stages] == [[], ["a"], ["b"]]
    other = pb.CreatePipelineRequest(pipeline_id="p", pipeline=declared(DIAMOND))
    with pytest.raises(errors.AlreadyExists):
        stub.CreatePipeline(other)
    with pytest.raises(errors.NotFound) as missing:
        stub.UpdatePipeline(pb.UpdatePipelineRequest(pipeline=declared(CHAIN, "q")))
    assert missing.value.reason == "PIPELINE_NOT_FOUND"
    update = pb.UpdatePipelineRequest(pipeline=declared(CHAIN, "q"), allow_missing=True)
    stub.UpdatePipeline(update)
    changed = pb.UpdatePipelineRequest(pipeline=declared(DIAMOND, delivery=ONCE))
    assert len(stub.UpdatePipeline(changed).pipeline.edges) == 4
    listed = stub.ListPipelines(pb.ListPipelinesRequest()).pipelines
    assert [each.name for each in listed] == ["pipelines/p", "pipelines/q"]
    stub.DeletePipeline(pb.DeletePipelineRequest(name="pipelines/q"))
    with pytest.raises(errors.NotFound):
        stages.get("q")


@pytest.mark.parametrize(
    ("pipeline", "field"),
    [
        (declared({"a": "", "b": "a c"}), "pipeline.stages[1].from"),
        (declared({}), "pipeline.stages"),
        (declared({"a": ""}, delivery=7), "pipeline.delivery"),
    ],
)
def test_wrong_pipelines(stages: Stages, pipeline: Any, field: str) -> None:
    """The field is named."""
    with pytest.raises(errors.InvalidArgument) as caught:
        stages.stub.CreatePipeline(pb.CreatePipelineRequest(pipeline_id="p", pipeline=pipeline))
    assert caught.value.metadata["field"] == field


def test_runs_that_can_not_be(stages: Stages) -> None:
    """No such pipeline, a stage without a channel, one whose instance is not known yet."""
    assert refused(stages, "x").reason == "PIPELINE_NOT_FOUND"
    stages.stub.CreatePipeline(
        pb.CreatePipelineRequest(pipeline_id="p", pipeline=declared({"a": ""}))
    )
    assert refused(stages, "x").reason == "CHANNEL_NOT_FOUND"


def test_a_pipeline_that_goes_ends_its_runs(stages: Stages) -> None:
    """With STAGE_LOST; its stages are none any more, and can be made ones again."""
    stages.up(CHAIN)
    with ThreadPoolExecutor(1) as pool:
        run = pool.submit(stages.outcome, "hold@b")
        wait_until(lambda: stages.get().stats.in_flight == 1, "the run is under way")
        stages.stub.DeletePipeline(pb.DeletePipelineRequest(name="pipelines/p"))
        assert run.result() == "STAGE_LOST"
        stages.let_go()
    stages.stub.CreatePipeline(
        pb.CreatePipelineRequest(pipeline_id="p", pipeline=declared({"b": "", "c": "b"}))
    )
    began = time.monotonic()
    assert stages.run("x") == "x b c"
    assert time.monotonic() - began < 15
