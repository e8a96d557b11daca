# SPDX-License-Identifier: Apache-2.0
"""Plans, etags and updates of a real registry: what is shown is what is done."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_common.errors import Aborted, FailedPrecondition, InvalidArgument, NotFound
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

ACTIONS = registry_service_pb2.PlanAction
WARM = function_pb2.FUNCTION_STATE_WARM_SNAPSHOT


def warm(registry: RegistryClient, spec: Spec, **fields: object) -> function_pb2.Function:
    """Deploy hello and wait until it is armed and nothing changes any more."""
    registry.apply(spec(**fields))
    registry.deployed()
    wait_until(lambda: registry.get().state == WARM)
    return registry.get()


def told(response: registry_service_pb2.ApplyConfigResponse) -> list[tuple[str, str, int]]:
    """Return id, action and revision of each part of a plan."""
    return [
        (each.function_id, ACTIONS.Name(each.action).removeprefix("PLAN_ACTION_"), each.revision)
        for each in response.plan
    ]


def changes(plan: registry_service_pb2.FunctionPlan) -> list[tuple[str, str, str]]:
    """Return the changed fields of a plan."""
    return [(each.field, each.before, each.after) for each in plan.changes]


def test_a_plan_changes_nothing(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """It says what is new, changed, the same and gone; then doing it says the same."""
    warm(registry, spec, environment={"A": "1", "B": "2"})
    registry.apply(spec("gone", trigger_port=9090), spec("same", trigger_port=9091))
    registry.deployed("gone")
    registry.deployed("same")
    wanted = [
        spec("new", trigger_port=9092),
        spec(memory_limit_mb=256, environment={"A": "3", "C": ""}),
        spec("same", trigger_port=9091),
    ]
    before, calls = registry.list(), list(host.calls)
    plan = registry.apply(*wanted, prune=True, validate_only=True)
    assert told(plan) == [
        ("new", "CREATE", 1),
        ("hello", "UPDATE", 2),
        ("same", "UNCHANGED", 1),
        ("gone", "DELETE", 0),
    ]
    assert changes(plan.plan[1]) == [
        ("memory_limit_mb", "128", "256"),
        ("environment.A", "1", "3"),
        ("environment.B", "2", ""),
        ("environment.C", "", '""'),
    ]
    assert [each.etag for each in plan.plan if each.function_id == "new"] == ["0"]
    assert [each.revision for each in plan.functions] == [1, 2, 1]
    assert (registry.list(), host.calls) == (before, calls)
    done = registry.apply(*wanted, prune=True)
    assert told(done) == told(plan)
    registry.gone("gone")


def test_a_failed_declaration_is_retried(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The same again is a revision of its own, and named so."""
    host.foreign_ports.add(8080)
    registry.apply(spec())
    registry.failed()
    assert told(registry.apply(spec(), validate_only=True)) == [("hello", "RETRY", 2)]
    timeout = spec()
    timeout.timeout.FromMilliseconds(1500)
    timeout.warmup_kind = function_pb2.WARMUP_KIND_TCP
    (plan,) = registry.apply(timeout, validate_only=True).plan
    assert changes(plan) == [("timeout", "2s", "1.500s"), ("warmup_kind", "HTTP", "TCP")]


def test_a_plan_is_refused_as_the_doing_would_be(registry: RegistryClient, spec: Spec) -> None:
    """Faults of the declaration and taken ports are found without doing anything."""
    warm(registry, spec)
    with pytest.raises(InvalidArgument) as wrong:
        registry.apply(spec(memory_limit_mb=99999), validate_only=True)
    assert wrong.value.reason == "CONFIG_INVALID"
    with pytest.raises(FailedPrecondition) as taken:
        registry.apply(spec("other"), validate_only=True)
    assert taken.value.reason == "PORT_IN_USE"


def test_what_was_shown_is_what_is_done(registry: RegistryClient, spec: Spec) -> None:
    """A function that changed, appeared or vanished since refuses the whole declaration."""
    function = warm(registry, spec)
    new = spec(memory_limit_mb=256)
    stale = {"hello": "1"}
    with pytest.raises(Aborted) as raised:
        registry.apply(new, etags=stale)
    assert raised.value.reason == "ETAG_MISMATCH"
    assert raised.value.metadata["actual"] == function.etag
    with pytest.raises(Aborted) as raised:
        registry.apply(new, etags={"hello": "0"})
    assert raised.value.metadata["expected"] == "0"
    with pytest.raises(Aborted) as raised:
        registry.apply(new, etags={"hello": function.etag, "vanished": "5"})
    assert raised.value.metadata["actual"] == "0"
    other = spec("other", trigger_port=9090)
    assert registry.apply(other, etags={"other": "0"}).functions[0].revision == 1
    assert registry.apply(new, etags={"hello": function.etag}).functions[0].revision == 2


def test_prune_with_etags_deletes_only_what_was_shown(registry: RegistryClient, spec: Spec) -> None:
    """A function that came after the plan is not deleted unseen."""
    warm(registry, spec)
    registry.apply(spec("unseen", trigger_port=9090))
    with pytest.raises(Aborted) as raised:
        registry.apply(spec(), prune=True, etags={"hello": registry.get().etag})
    assert raised.value.metadata["name"] == "unseen"
    assert registry.get("unseen").deleting is False


def test_an_update_takes_what_the_mask_names(registry: RegistryClient, spec: Spec) -> None:
    """And leaves the rest; output-only paths are ignored."""
    warm(registry, spec, environment={"A": "1", "B": "2"})
    wanted = function_pb2.FunctionSpec(
        memory_limit_mb=256, trigger_port=9999, environment={"B": "3"}
    )
    answer = registry.update(wanted, "spec.memory_limit_mb", "spec.environment.B", "state", "etag")
    assert changes(answer.plan) == [("memory_limit_mb", "128", "256"), ("environment.B", "2", "3")]
    assert answer.function.spec.trigger_port == 8080
    assert dict(answer.function.spec.environment) == {"A": "1", "B": "3"}
    registry.deployed(revision=2)


def test_an_update_without_a_mask_takes_what_is_set(registry: RegistryClient, spec: Spec) -> None:
    """Maps and lists as wholes."""
    warm(registry, spec, environment={"A": "1"}, mounts=["/a"])
    wanted = function_pb2.FunctionSpec(environment={"B": "2"}, mounts=["/b"])
    function = registry.update(wanted).function
    assert dict(function.spec.environment) == {"B": "2"}
    assert list(function.spec.mounts) == ["/b"]
    assert function.spec.memory_limit_mb == 128


def test_an_update_of_all_replaces_all(registry: RegistryClient, spec: Spec) -> None:
    """With "*" what is not set is taken away; the id stays."""
    warm(registry, spec, environment={"A": "1"})
    wanted = spec(memory_limit_mb=64)
    wanted.function_id = ""
    function = registry.update(wanted, "*").function
    assert function.spec == spec(memory_limit_mb=64)
    with pytest.raises(InvalidArgument) as raised:
        registry.update(function_pb2.FunctionSpec(memory_limit_mb=64), "*")
    assert raised.value.reason == "CONFIG_INVALID"
    assert "function.spec.handler_path" in [each.field for each in raised.value.violations]


UNKNOWN_PATHS = [
    *("nonsense", "spec.nonsense", "spec.timeout.hours", "spec.timeout.seconds"),
    *("spec.environment.", "spec.mounts.0", "state.x", ""),
]


@pytest.mark.parametrize("path", UNKNOWN_PATHS)
def test_unknown_paths_are_refused(registry: RegistryClient, spec: Spec, path: str) -> None:
    """With the field that is wrong; nothing changes."""
    before = warm(registry, spec)
    with pytest.raises(InvalidArgument) as raised:
        registry.update(spec(memory_limit_mb=64), "spec.memory_limit_mb", path)
    assert raised.value.metadata["field"] == "update_mask"
    assert registry.get() == before


def test_an_update_is_guarded(registry: RegistryClient, spec: Spec) -> None:
    """By an etag, a request id, and the name; it can be planned only."""
    function = warm(registry, spec)
    wanted = function_pb2.FunctionSpec(memory_limit_mb=64)
    with pytest.raises(Aborted):
        registry.update(wanted, etag="1")
    with pytest.raises(InvalidArgument):
        registry.update(function_pb2.FunctionSpec(function_id="other"))
    planned = registry.update(wanted, validate_only=True)
    assert (planned.plan.revision, planned.function.revision) == (2, 2)
    assert registry.get() == function
    first = registry.update(wanted, etag=function.etag, request_id="once")
    registry.deployed(revision=2)
    assert registry.update(wanted, etag=function.etag, request_id="once") == first
    with pytest.raises(InvalidArgument):
        registry.update(function_pb2.FunctionSpec(memory_limit_mb=65), request_id="once")
    with pytest.raises(NotFound):
        registry.stub.UpdateFunction(
            registry_service_pb2.UpdateFunctionRequest(
                function=function_pb2.Function(name="functions/nobody")
            )
        )
    with pytest.raises(InvalidArgument):
        registry.stub.UpdateFunction(registry_service_pb2.UpdateFunctionRequest())


def test_an_update_that_changes_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It is no revision, and no step."""
    before = warm(registry, spec)
    host.calls.clear()
    answer = registry.update(function_pb2.FunctionSpec(memory_limit_mb=128))
    assert answer.plan.action == ACTIONS.Value("PLAN_ACTION_UNCHANGED")
    assert answer.function == before
    assert host.calls == []
