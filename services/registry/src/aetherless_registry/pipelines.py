# SPDX-License-Identifier: Apache-2.0
"""What a declaration does to pipelines. Pure: what is stored and asked for in, writes and plan out.

A pipeline has no revisions: the ipc service is told of what is stored, as it is.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING, NamedTuple

from aetherless.registry.v1 import pipeline_pb2, registry_service_pb2
from aetherless_common.errors import Violation
from aetherless_common.stages import ID, Stage, of_messages, problems
from aetherless_registry import errors, resources
from aetherless_registry.declare import NO_ETAG, is_guarded

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from aetherless_registry.store import FunctionRecord

MOST_PIPELINES = 256
MAX_TIMEOUT_MS = 900_000
NS_PER_MS = 1_000_000
ETAG_DIGITS = 16


class Piped(NamedTuple):
    """What is to be stored of pipelines (nothing: removed), and the plan to be told."""

    writes: dict[str, bytes]
    plan: list[registry_service_pb2.PipelinePlan]


def declare(
    stored: Mapping[str, bytes],
    request: registry_service_pb2.ApplyConfigRequest,
    functions: Iterable[FunctionRecord],
) -> Piped:
    """Return what a request changes; ``functions`` are all as the request leaves them.

    Raises:
        InvalidArgument: CONFIG_INVALID.
        FailedPrecondition: FUNCTION_IN_USE, a pipeline that stays needs one that does not.
        Aborted: ETAG_MISMATCH.
    """
    functions = list(functions)
    found = _violations(request.pipelines, _callable(functions))
    if found:
        raise errors.config_invalid(found)
    named = {spec.pipeline_id: spec for spec in request.pipelines}
    others = {key: spec for key, spec in stored.items() if key not in named}
    _check_etags(stored, request, others if request.prune else ())
    if not request.prune:
        check_functions(others, functions)
        others = {}
    plan = [_plan(stored.get(key), spec) for key, spec in named.items()]
    plan += [
        registry_service_pb2.PipelinePlan(
            pipeline_id=key, action=registry_service_pb2.PLAN_ACTION_DELETE, etag=etag(data)
        )
        for key, data in others.items()
    ]
    new = {key: resources.encode_pipeline(spec) for key, spec in named.items()}
    return Piped({**dict.fromkeys(others, b""), **new}, plan)


def etag(stored: bytes | None) -> str:
    """Return what is another one for another declaration of a pipeline; NO_ETAG for none."""
    return hashlib.sha256(stored).hexdigest()[:ETAG_DIGITS] if stored is not None else NO_ETAG


def _check_etags(
    stored: Mapping[str, bytes],
    request: registry_service_pb2.ApplyConfigRequest,
    pruned: Iterable[str],
) -> None:
    """Refuse what changed since it was read; with etags, also to prune what was not read at all."""
    expected = dict(request.pipeline_etags)
    if is_guarded(request):
        expected = {**dict.fromkeys(pruned, NO_ETAG), **expected}
    for pipeline_id, wanted in expected.items():
        actual = etag(stored.get(pipeline_id))
        if actual != wanted:
            raise errors.etag_mismatch("pipeline", pipeline_id, wanted, actual)


def check_functions(stored: Mapping[str, bytes], functions: Iterable[FunctionRecord]) -> None:
    """Refuse functions as they would be when a stored pipeline can't do with them.

    Raises:
        FailedPrecondition: FUNCTION_IN_USE.
    """
    having = _callable(functions)
    for pipeline_id, data in stored.items():
        for stage in pipeline_pb2.PipelineSpec.FromString(data).stages:
            if stage.function_id not in having:
                raise errors.function_in_use(stage.function_id, pipeline_id)


def _callable(functions: Iterable[FunctionRecord]) -> set[str]:
    """Return the ids of the functions that have a channel, and are not to go."""
    return {
        record.function_id
        for record in functions
        if not record.deleting and resources.decode_spec(record.spec).ipc
    }


def _violations(specs: Iterable[pipeline_pb2.PipelineSpec], functions: set[str]) -> list[Violation]:
    """Return all that is wrong with pipelines, in their order."""
    found: list[Violation] = []
    first: dict[str, int] = {}
    for index, spec in enumerate(specs):
        place = f"pipelines[{index}]"
        found += [Violation(f"{place}.{field}", text) for field, text in _problems(spec, functions)]
        if first.setdefault(spec.pipeline_id, index) != index:
            taken = f"{spec.pipeline_id!r} is taken by pipelines[{first[spec.pipeline_id]}]"
            found.append(Violation(f"{place}.pipeline_id", taken))
    if len(first) > MOST_PIPELINES:
        found.append(Violation("pipelines", f"must be at most {MOST_PIPELINES}"))
    return found


def _problems(spec: pipeline_pb2.PipelineSpec, functions: set[str]) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one pipeline."""
    if not ID.fullmatch(spec.pipeline_id):
        yield "pipeline_id", "must be 1 to 64 characters of A-Z a-z 0-9 _ -"
    if not 1 <= spec.timeout.ToNanoseconds() / NS_PER_MS <= MAX_TIMEOUT_MS:
        yield "timeout", f"must be 1 to {MAX_TIMEOUT_MS} ms"
    if spec.delivery not in pipeline_pb2.Delivery.values():
        yield "delivery", f"must be AT_LEAST_ONCE or AT_MOST_ONCE, is {spec.delivery}"
    for problem in problems(of_messages(spec.stages), functions):
        at = f"stages[{problem.number}].{problem.field}"
        yield "stages" if problem.field == "stages" else at, problem.text


def _plan(
    stored: bytes | None, spec: pipeline_pb2.PipelineSpec
) -> registry_service_pb2.PipelinePlan:
    """Return what is told of a declared pipeline."""
    if stored is None:
        action = registry_service_pb2.PLAN_ACTION_CREATE
    elif stored == resources.encode_pipeline(spec):
        action = registry_service_pb2.PLAN_ACTION_UNCHANGED
    else:
        action = registry_service_pb2.PLAN_ACTION_UPDATE
    before = pipeline_pb2.PipelineSpec.FromString(stored) if stored else spec
    changes = [
        registry_service_pb2.FieldChange(field=field, before=old, after=new)
        for (field, old), (_, new) in zip(_told(before), _told(spec), strict=True)
        if old != new
    ]
    return registry_service_pb2.PipelinePlan(
        pipeline_id=spec.pipeline_id, action=action, changes=changes, etag=etag(stored)
    )


def _told(spec: pipeline_pb2.PipelineSpec) -> list[tuple[str, str]]:
    """Return a pipeline's fields as text."""
    delivery = pipeline_pb2.Delivery.Name(spec.delivery).removeprefix("DELIVERY_")
    return [
        ("stages", "; ".join(map(_of_stage, of_messages(spec.stages)))),
        ("timeout", spec.timeout.ToJsonString()),
        ("delivery", delivery),
    ]


def _of_stage(stage: Stage) -> str:
    """Return a stage as text: ``sources > stage = function.method``."""
    method = f".{stage.method}" if stage.method else ""
    function = f"{stage.function_id}{method}"
    whole = function if stage.stage_id == function else f"{stage.stage_id} = {function}"
    return f"{', '.join(stage.sources)} > {whole}" if stage.sources else whole
