# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""``aetherctl pipeline``: what it asks for, and what it shows of the answers."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2, ipc_service_pb2_grpc, pipeline_pb2
from aetherless_cli.completion import pipeline_ids
from aetherless_cli.main import run
from aetherless_common import status
from aetherless_common.errors import FailedPrecondition, NotFound

if TYPE_CHECKING:
    from pathlib import Path

    import grpc
    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings


def chain(runs: int = 7) -> pipeline_pb2.Pipeline:
    """Return a pipeline of two stages."""
    made = pipeline_pb2.Pipeline(
        name="pipelines/image", delivery=pipeline_pb2.DELIVERY_AT_LEAST_ONCE
    )
    made.timeout.FromMilliseconds(1500)
    made.stages.add(stage_id="decode", function_id="dec", attached=True, records=runs - 1)
    last = made.stages.add(stage_id="encode", function_id="enc", method="png", failed=1)
    getattr(last, "from").append("decode")
    edge = made.edges.add(
        to="encode", has_producer=True, generation=2, produced_bytes=640 * runs, consumed_bytes=128
    )
    setattr(edge, "from", "decode")
    made.stats.MergeFrom(
        pipeline_pb2.PipelineStats(
            runs=runs, succeeded=runs - 2, failed=1, in_flight=1, request_bytes=100
        )
    )
    return made


class Ipc(ipc_service_pb2_grpc.IpcServiceServicer):
    """Has one pipeline, through which 7 runs more went each time that it is asked."""

    def __init__(self) -> None:
        self.asked: list[ipc_service_pb2.InvokeRequest] = []
        self.runs = 0

    def register(self, server: grpc.Server) -> None:
        """Add it to a server."""
        ipc_service_pb2_grpc.add_IpcServiceServicer_to_server(self, server)

    def ListPipelines(self, request: Any, context: Any) -> Any:
        """Return it."""
        self.runs += 7
        return ipc_service_pb2.ListPipelinesResponse(pipelines=[chain(self.runs)])

    def GetPipeline(self, request: Any, context: Any) -> Any:
        """Return it, if it is asked for."""
        if request.name != "pipelines/image":
            error = NotFound("PIPELINE_NOT_FOUND", "no pipeline", {"pipeline": "x"})
            status.abort(context, error, "ipc.aetherless")
        return ipc_service_pb2.GetPipelineResponse(pipeline=chain())

    def Invoke(self, request: Any, context: Any) -> Any:
        """Answer with the data backwards; "bad" fails at a stage."""
        self.asked.append(request)
        if request.data == b"bad":
            metadata = {"pipeline": "image", "stage": "encode", "handlerMessage": "no"}
            error = FailedPrecondition("STAGE_FAILED", "stage encode failed: no", metadata)
            status.abort(context, error, "ipc.aetherless")
        return ipc_service_pb2.InvokeResponse(data=request.data[::-1], attempts=1)


@pytest.fixture
def ipc(play: Play) -> Ipc:
    """Play the ipc service."""
    played = Ipc()  # type: ignore[abstract] # plays a part
    play("ipc", played.register)
    return played


def test_list(ipc: Ipc, capsys: pytest.CaptureFixture[str]) -> None:
    """One row a pipeline, or all that is known for programs."""
    assert run(["pipeline", "list"]) == 0
    titles, row = capsys.readouterr().out.splitlines()
    assert titles.split() == ["ID", "STAGES", "DELIVERY", "RUNS", "FAILED", "FLYING"]
    assert row.split() == ["image", "decode", "→", "encode", "at-least-once", "7", "1", "1"]
    assert run(["pipeline", "list", "-o", "json"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["pipelines"]
    assert (told["stats"]["runs"], told["stages"][1]["from"]) == (14, ["decode"])


def test_describe(ipc: Ipc, capsys: pytest.CaptureFixture[str]) -> None:
    """Stages and edges with their counters; one that is not there is an error."""
    assert run(["pipeline", "describe", "image"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert "delivery  at-least-once" in lines
    assert ["encode", "enc", "png", "decode", "no", "0", "1"] in [line.split() for line in lines]
    assert lines[-1].split() == ["decode", "encode", "writer", "2", "4480", "4352"]
    assert run(["pipeline", "describe", "x"]) == 4


def test_run_writes_the_answer_and_nothing_else(
    ipc: Ipc, tmp_path: Path, capsysbinary: pytest.CaptureFixture[bytes]
) -> None:
    """Of what it is given on the line or in a file, with its time."""
    assert run(["pipeline", "run", "image", "--data", "abc", "--timeout", "1.5", "--wait"]) == 0
    assert capsysbinary.readouterr().out == b"cba"
    (request,) = ipc.asked
    assert (request.pipeline, request.timeout.ToMilliseconds()) == ("pipelines/image", 1500)
    assert request.wait_for_room
    file = tmp_path / "given"
    file.write_bytes(b"\xff\x00")
    assert run(["pipeline", "run", "image", "--file", str(file), "-o", "json"]) == 0
    told = json.loads(capsysbinary.readouterr().out)
    assert (told["pipeline"], told["data_base64"]) == ("image", "AP8=")


def test_a_run_that_fails_names_its_stage(ipc: Ipc, capsys: pytest.CaptureFixture[str]) -> None:
    """As the error has it, for programs too."""
    assert run(["pipeline", "run", "image", "--data", "bad", "-o", "json"]) == 6
    error = json.loads(capsys.readouterr().err)["error"]
    assert (error["reason"], error["metadata"]["stage"]) == ("STAGE_FAILED", "encode")


def test_top_shows_rates(ipc: Ipc, capsys: pytest.CaptureFixture[str]) -> None:
    """A row for the pipeline and for each stage; lines elsewhere than on a terminal."""
    assert run(["pipeline", "top", "-n", "2", "--interval", "0.1", "-o", "json"]) == 0
    first, second = map(json.loads, capsys.readouterr().out.splitlines())
    assert [row["id"] for row in second["stages"]] == ["image", "image/decode", "image/encode"]
    assert first["stages"][0]["records_per_s"] is None
    whole, decode, encode = second["stages"]
    assert 0 < whole["records_per_s"] < 100
    assert decode["records_per_s"] == whole["records_per_s"]
    assert (encode["waiting_bytes"], whole["in_flight"]) == (640 * 14 - 128, 1)
    assert run(["pipeline", "top", "image", "-n", "1"]) == 0
    titles, *rows = capsys.readouterr().out.splitlines()
    assert titles.split()[:3] == ["TIME", "PIPELINE/STAGE", "FUNCTION"]
    assert len(rows) == 3


def test_shells_are_told_the_ids(ipc: Ipc, settings: Settings) -> None:
    """Those that begin so."""
    assert pipeline_ids("im") == ["image"]
    assert pipeline_ids("x") == []
