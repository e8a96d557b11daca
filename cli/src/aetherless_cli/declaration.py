# SPDX-License-Identifier: Apache-2.0
"""From a checked configuration to the registry's declaration."""

from __future__ import annotations

from pathlib import Path

from google.protobuf.duration_pb2 import Duration

from aetherless.registry.v1 import function_pb2, pipeline_pb2
from aetherless_cli.config import Config, FunctionConfig, PipelineConfig, Warmup, stages_of
from aetherless_cli.digest import digest_of

KINDS = {
    "http": function_pb2.WARMUP_KIND_HTTP,
    "tcp": function_pb2.WARMUP_KIND_TCP,
    "none": function_pb2.WARMUP_KIND_NONE,
}
CAPABILITIES = {
    "none": function_pb2.CAPABILITY_SET_NONE,
    "container": function_pb2.CAPABILITY_SET_CONTAINER,
}


DELIVERIES = {
    "at-least-once": pipeline_pb2.DELIVERY_AT_LEAST_ONCE,
    "at-most-once": pipeline_pb2.DELIVERY_AT_MOST_ONCE,
}


def specs_of(config: Config, restore_timeout_ms: int) -> list[function_pb2.FunctionSpec]:
    """Return every function of a configuration as the registry takes it.

    ``restore_timeout_ms`` is for functions that have none of their own.
    """
    return [_spec(function, restore_timeout_ms) for function in config.functions]


def pipelines_of(config: Config) -> list[pipeline_pb2.PipelineSpec]:
    """Return every pipeline of a configuration as the registry takes it."""
    return [_pipeline(pipeline) for pipeline in config.pipelines]


def _pipeline(pipeline: PipelineConfig) -> pipeline_pb2.PipelineSpec:
    spec = pipeline_pb2.PipelineSpec(
        pipeline_id=pipeline.id,
        timeout=_duration(pipeline.timeout_ms),
        delivery=DELIVERIES[pipeline.delivery],
    )
    for stage in stages_of(pipeline):
        added = spec.stages.add(
            stage_id=stage.stage_id, function_id=stage.function_id, method=stage.method
        )
        getattr(added, "from").extend(stage.sources)  # a word of Python's
    return spec


def _spec(function: FunctionConfig, restore_timeout_ms: int) -> function_pb2.FunctionSpec:
    warmup = function.warmup if function.trigger_port else "none"  # it asks on the port
    return function_pb2.FunctionSpec(
        function_id=function.id,
        handler_path=function.handler_path,
        root_path=function.root or "",
        memory_limit_mb=function.memory_limit_mb,
        trigger_port=function.trigger_port or 0,
        timeout=_duration(function.timeout_ms),
        restore_timeout=_duration(function.restore_timeout_ms or restore_timeout_ms),
        idle_after=_duration(function.idle_after_ms),
        environment=function.environment,
        warmup_kind=KINDS["http" if isinstance(warmup, Warmup) else warmup],
        warmup_path=warmup.path if isinstance(warmup, Warmup) else "",
        mounts=function.mounts,
        capabilities=CAPABILITIES[function.capabilities],
        ipc=function.ipc,
        may_call=function.may_call,
        source_digest=digest_of(
            Path(function.handler_path), Path(function.root) if function.root else None
        ),
    )


def _duration(milliseconds: int) -> Duration:
    return Duration(seconds=milliseconds // 1000, nanos=milliseconds % 1000 * 1_000_000)
