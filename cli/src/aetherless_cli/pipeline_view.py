# SPDX-License-Identifier: Apache-2.0
"""Pipelines for people: their graph, their counters, and live rates of each stage."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless_cli.plain import enum_word, milliseconds

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless.ipc.v1.pipeline_pb2 import Edge, Pipeline, Stage

# Of the live view: title, key. The row of a pipeline has its own id, those of stages follow.
TOP_COLUMNS = (
    ("PIPELINE/STAGE", "id"),
    ("FUNCTION", "function"),
    ("REC/S", "records_per_s"),
    ("FAILED", "failed"),
    ("FLYING", "in_flight"),
    ("IN/S", "bytes_per_s"),
    ("WAITING", "waiting_bytes"),
)
# Where a first stage has its data from; no stage can have this name.
CALLER = "(caller)"
TOP_RATES = {"records": "records_per_s", "bytes": "bytes_per_s"}


def name_of(pipeline: Pipeline) -> str:
    """Return a pipeline's id."""
    return str(pipeline.name.rpartition("/")[2])


def sources_of(stage: Stage) -> list[str]:
    """Return the stages that a stage reads of."""
    return list(getattr(stage, "from"))  # a word of Python's


def graph(pipeline: Pipeline) -> str:
    """Return a pipeline's stages in one line."""
    ids = [each.stage_id for each in pipeline.stages]
    chain = all(
        sources_of(stage) == ids[max(index - 1, 0) : index]
        for index, stage in enumerate(pipeline.stages)
    )
    if chain:
        return " → ".join(ids)
    told = (f"{','.join(sources_of(each)) or CALLER} → {each.stage_id}" for each in pipeline.stages)
    return "; ".join(told)


def fields_of(pipeline: Pipeline) -> dict[str, object]:
    """Return what a pipeline is and what ran through it."""
    stats = pipeline.stats
    return {
        "pipeline": name_of(pipeline),
        "stages": graph(pipeline),
        "delivery": enum_word(pipeline, "delivery").lower().replace("_", "-"),
        "timeout": f"{milliseconds(pipeline.timeout):.0f} ms",
        "runs": f"{stats.runs} taken on, {stats.in_flight} under way",
        "ended": f"{stats.succeeded} answered, {stats.failed} failed"
        f" ({stats.timed_out} of them by time)",
        "bytes": f"{stats.request_bytes} given, {stats.response_bytes} answered",
    }


def stage_row(stage: Stage) -> list[object]:
    """Return a stage as a row: id, function, method, inputs, attached, records, failed."""
    return [
        stage.stage_id,
        stage.function_id,
        stage.method,
        ", ".join(sources_of(stage)) or CALLER,
        "yes" if stage.attached else "no",
        stage.records,
        stage.failed,
    ]


def edge_row(edge: Edge) -> list[object]:
    """Return an edge as a row: from, to, ends, generation, bytes, waiting bytes."""
    ends = "+".join(
        word
        for word, there in (("writer", edge.has_producer), ("reader", edge.has_consumer))
        if there
    )
    waiting = edge.produced_bytes - edge.consumed_bytes
    return [getattr(edge, "from"), edge.to, ends, edge.generation, edge.produced_bytes, waiting]


def top_rows(pipelines: list[Pipeline]) -> list[dict[str, Any]]:
    """Return the live view's numbers: of each pipeline, then of each of its stages."""
    return [row for pipeline in pipelines for row in _rows(pipeline)]


def _rows(pipeline: Pipeline) -> Iterator[dict[str, Any]]:
    name, stats = name_of(pipeline), pipeline.stats
    waiting = [each.produced_bytes - each.consumed_bytes for each in pipeline.edges]
    yield {
        "id": name,
        "function": None,
        "records": stats.succeeded + stats.failed,
        "failed": stats.failed,
        "in_flight": stats.in_flight,
        "bytes": stats.request_bytes,
        "waiting_bytes": sum(waiting),
    }
    for stage in pipeline.stages:
        edges = [each for each in pipeline.edges if each.to == stage.stage_id]
        given = sum(each.produced_bytes for each in edges) if edges else stats.request_bytes
        yield {
            "id": f"{name}/{stage.stage_id}",
            "function": stage.function_id,
            "records": stage.records,
            "failed": stage.failed,
            "in_flight": None,
            "bytes": given,
            "waiting_bytes": sum(each.produced_bytes - each.consumed_bytes for each in edges),
        }
