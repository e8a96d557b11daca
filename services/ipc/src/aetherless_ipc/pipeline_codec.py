# SPDX-License-Identifier: Apache-2.0
"""Pipelines of the contract to what is declared, and pipelines to what the contract has."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.ipc.v1 import pipeline_pb2
from aetherless_common.errors import InvalidArgument, Violation, invalid_argument
from aetherless_common.stages import ID, Stage, of_messages, problems
from aetherless_ipc import codec
from aetherless_ipc.pipeline import Delivery, PipelineDeclaration

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aetherless_ipc.edge import Edge
    from aetherless_ipc.pipeline import Pipeline
    from aetherless_ipc.stageboard import StageBoard

PREFIX = "pipelines/"
DEFAULT_TIMEOUT_MS = 30_000
_DELIVERIES = {
    pipeline_pb2.DELIVERY_UNSPECIFIED: Delivery.AT_LEAST_ONCE,
    pipeline_pb2.DELIVERY_AT_LEAST_ONCE: Delivery.AT_LEAST_ONCE,
    pipeline_pb2.DELIVERY_AT_MOST_ONCE: Delivery.AT_MOST_ONCE,
}
_TOLD = {
    Delivery.AT_LEAST_ONCE: pipeline_pb2.DELIVERY_AT_LEAST_ONCE,
    Delivery.AT_MOST_ONCE: pipeline_pb2.DELIVERY_AT_MOST_ONCE,
}


def pipeline_id(field: str, name: str) -> str:
    """Return the id in "pipelines/{pipeline}".

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    return codec.named(field, name, PREFIX, ID)


def declaration(name: str, pipeline: pipeline_pb2.Pipeline) -> PipelineDeclaration:
    """Return what a pipeline is asked to be.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, with everything that is wrong with its stages.
    """
    if not ID.fullmatch(name):
        raise invalid_argument("pipeline_id", f"must match {ID.pattern}")
    if pipeline.delivery not in _DELIVERIES:
        raise invalid_argument("pipeline.delivery", f"{pipeline.delivery} is none")
    stages = of_messages(pipeline.stages)
    _check(stages)
    timeout_ms = round(codec.seconds("pipeline.timeout", pipeline.timeout) * 1000)
    delivery = _DELIVERIES[pipeline.delivery]
    return PipelineDeclaration(name, stages, timeout_ms or DEFAULT_TIMEOUT_MS, delivery)


def encode(pipeline: Pipeline, board: StageBoard) -> pipeline_pb2.Pipeline:
    """Return a pipeline as the contract has it; with the broker's lock held."""
    declared = pipeline.declared
    encoded = pipeline_pb2.Pipeline(
        name=PREFIX + declared.pipeline_id,
        delivery=_TOLD[declared.delivery],
        edges=[_edge(edge) for edge in board.edges.get(pipeline.wire_name, ())],
        stats=_stats(pipeline),
    )
    for stage, count in zip(pipeline.stages, pipeline.stage_counts, strict=True):
        added = encoded.stages.add(
            stage_id=stage.stage_id,
            function_id=stage.function_id,
            method=stage.method,
            attached=board.holder(stage.function_id) is not None,
            records=count.records,
            failed=count.failed,
        )
        getattr(added, "from").extend(stage.sources)
    encoded.timeout.FromMilliseconds(declared.timeout_ms)
    encoded.create_time.FromNanoseconds(declared.created_ns)
    return encoded


def _check(stages: Sequence[Stage]) -> None:
    """Refuse stages that are no pipeline."""
    found = [
        Violation(
            "pipeline.stages"
            if problem.field == "stages"
            else f"pipeline.stages[{problem.number}].{problem.field}",
            problem.text,
        )
        for problem in problems(stages, None)
    ]
    for index, stage in enumerate(stages):
        if not ID.fullmatch(stage.function_id):
            field = f"pipeline.stages[{index}].function_id"
            found.append(Violation(field, f"must match {ID.pattern}"))
    if found:
        first = found[0]
        raise InvalidArgument(
            "INVALID_ARGUMENT",
            f"{first.field} {first.problem}",
            {"field": first.field, "problem": first.problem},
            violations=found,
        )


def _edge(edge: Edge) -> pipeline_pb2.Edge:
    """Return an edge as the contract has it."""
    produced, consumed = edge.bytes()
    encoded = pipeline_pb2.Edge(
        to=edge.arc.target,
        has_producer=edge.has_producer,
        has_consumer=edge.has_consumer,
        generation=edge.generation,
        produced_bytes=produced,
        consumed_bytes=consumed,
    )
    setattr(encoded, "from", edge.arc.source)  # a word of Python's
    return encoded


def _stats(pipeline: Pipeline) -> pipeline_pb2.PipelineStats:
    """Return a pipeline's counts as the contract has them."""
    counts = pipeline.stats.snapshot()
    return pipeline_pb2.PipelineStats(
        runs=counts.get("calls", 0),
        succeeded=counts.get("succeeded", 0),
        failed=counts.get("failed", 0) + counts.get("cancelled", 0),
        timed_out=counts.get("timed_out", 0),
        in_flight=len(pipeline.runs),
        request_bytes=counts.get("request_bytes", 0),
        response_bytes=counts.get("response_bytes", 0),
    )
