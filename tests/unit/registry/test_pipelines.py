# SPDX-License-Identifier: Apache-2.0
"""What a declaration does to pipelines, and that functions stay which a pipeline needs."""

from __future__ import annotations

import pytest

from aetherless.registry.v1 import function_pb2, pipeline_pb2, registry_service_pb2
from aetherless_common.errors import Aborted, FailedPrecondition, InvalidArgument
from aetherless_registry import pipelines, resources
from aetherless_registry.declare import NO_ETAG
from aetherless_registry.store import DEPLOYED, FunctionRecord

ACTIONS = registry_service_pb2.PlanAction


def function(name: str, *, ipc: bool = True, deleting: bool = False) -> FunctionRecord:
    """Return a stored function."""
    spec = function_pb2.FunctionSpec(function_id=name, ipc=ipc)
    return FunctionRecord(
        function_id=name,
        spec=resources.encode_spec(spec),
        revision=1,
        state="WARM_SNAPSHOT",
        deploy_state=DEPLOYED,
        create_time_ns=1,
        update_time_ns=1,
        deleting=deleting,
    )


def pipeline(name: str, *stages: str, **fields: object) -> pipeline_pb2.PipelineSpec:
    """Return a chain."""
    spec = pipeline_pb2.PipelineSpec(pipeline_id=name, **fields)  # type: ignore[arg-type]
    if not spec.HasField("timeout"):
        spec.timeout.FromMilliseconds(1000)
    for index, stage in enumerate(stages):
        added = spec.stages.add(stage_id=stage, function_id=stage)
        getattr(added, "from").extend(stages[index - 1 : index] if index else ())
    return spec


def applied(
    *specs: pipeline_pb2.PipelineSpec, prune: bool = False
) -> registry_service_pb2.ApplyConfigRequest:
    """Return a request."""
    return registry_service_pb2.ApplyConfigRequest(pipelines=specs, prune=prune)


def stored(*specs: pipeline_pb2.PipelineSpec) -> dict[str, bytes]:
    """Return what is stored."""
    return {spec.pipeline_id: resources.encode_pipeline(spec) for spec in specs}


FUNCTIONS = [function("a"), function("b"), function("c", ipc=False)]


def test_the_plan_says_what_changes() -> None:
    """New, the same, changed field by field; what is not named stays without prune."""
    before = stored(pipeline("same", "a", "b"), pipeline("changed", "a", "b"), pipeline("old", "a"))
    wanted = [
        pipeline("new", "b", "a"),
        pipeline("same", "a", "b"),
        pipeline("changed", "a", delivery=pipeline_pb2.DELIVERY_AT_MOST_ONCE),
    ]
    made = pipelines.declare(before, applied(*wanted), FUNCTIONS)
    told = [(each.pipeline_id, ACTIONS.Name(each.action)[12:]) for each in made.plan]
    assert told == [("new", "CREATE"), ("same", "UNCHANGED"), ("changed", "UPDATE")]
    assert [(each.field, each.before, each.after) for each in made.plan[2].changes] == [
        ("stages", "a; a > b", "a"),
        ("delivery", "UNSPECIFIED", "AT_MOST_ONCE"),
    ]
    assert made.writes == stored(*wanted)
    pruned = pipelines.declare(before, applied(*wanted, prune=True), FUNCTIONS)
    assert (pruned.plan[-1].pipeline_id, pruned.writes["old"]) == ("old", b"")


def test_only_what_was_seen_is_changed() -> None:
    """The plan has what each pipeline is now; whoever names that is refused once it is not."""
    before = stored(pipeline("p", "a"), pipeline("old", "a"))
    request = applied(pipeline("p", "a", "b"), pipeline("new", "b"), prune=True)
    plan = pipelines.declare(before, request, FUNCTIONS).plan
    assert [each.etag for each in plan] == [
        pipelines.etag(before["p"]),
        NO_ETAG,
        pipelines.etag(before["old"]),
    ]
    request.pipeline_etags.update({each.pipeline_id: each.etag for each in plan})
    assert pipelines.declare(before, request, FUNCTIONS).plan == plan
    changes = [
        ("p", stored(pipeline("p", "b"), pipeline("old", "a"))),
        ("new", {**before, **stored(pipeline("new", "a"))}),
        ("old", stored(pipeline("p", "a"))),
        ("more", {**before, **stored(pipeline("more", "a"))}),  # nobody saw that it would go
    ]
    for name, now in changes:
        with pytest.raises(Aborted) as refused:
            pipelines.declare(now, request, FUNCTIONS)
        assert refused.value.reason == "ETAG_MISMATCH"
        assert refused.value.metadata["name"] == name


@pytest.mark.parametrize(
    ("spec", "field"),
    [
        (pipeline("p/q", "a"), "pipelines[0].pipeline_id"),
        (pipeline("p"), "pipelines[0].stages"),
        (pipeline("p", "a", "c"), "pipelines[0].stages[1].function_id"),
        (pipeline("p", "a", "x"), "pipelines[0].stages[1].function_id"),
        (pipeline("p", "a", delivery=9), "pipelines[0].delivery"),
    ],
)
def test_what_is_wrong_is_refused(spec: pipeline_pb2.PipelineSpec, field: str) -> None:
    """With the field it is in."""
    with pytest.raises(InvalidArgument) as refused:
        pipelines.declare({}, applied(spec), FUNCTIONS)
    assert (refused.value.reason, refused.value.violations[0].field) == ("CONFIG_INVALID", field)


def test_times_and_names() -> None:
    """A time from a millisecond to a quarter of an hour; a name once."""
    late = pipeline("p", "a")
    late.timeout.FromMilliseconds(900_001)
    with pytest.raises(InvalidArgument) as refused:
        pipelines.declare({}, applied(late, pipeline("p", "b")), FUNCTIONS)
    fields = [each.field for each in refused.value.violations]
    assert fields == ["pipelines[0].timeout", "pipelines[1].pipeline_id"]


@pytest.mark.parametrize("left", [[], [function("a", ipc=False)], [function("a", deleting=True)]])
def test_a_function_of_a_pipeline_stays(left: list[FunctionRecord]) -> None:
    """It can't go, nor lose its channel, while a pipeline that stays needs it."""
    with pytest.raises(FailedPrecondition) as refused:
        pipelines.check_functions(stored(pipeline("p", "a")), left)
    assert refused.value.reason == "FUNCTION_IN_USE"
    assert refused.value.metadata["function"] == "a"
    assert refused.value.metadata["pipeline"] == "p"
    with pytest.raises(FailedPrecondition):
        pipelines.declare(stored(pipeline("p", "a")), applied(), left)
    assert pipelines.declare(stored(pipeline("p", "a")), applied(prune=True), left).writes == {
        "p": b""
    }
