# SPDX-License-Identifier: Apache-2.0
"""What a declaration changes. Pure: the stored functions and a request in, records and plan out."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aetherless.registry.v1 import registry_service_pb2
from aetherless_registry import changes, errors, resources, validation
from aetherless_registry.machine import FunctionState
from aetherless_registry.store import DEPLOYING, FAILED, FunctionRecord

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Mapping, Sequence

    from aetherless.registry.v1 import function_pb2

# The etag of a function that does not exist.
NO_ETAG = "0"
CREATE = registry_service_pb2.PLAN_ACTION_CREATE
UPDATE = registry_service_pb2.PLAN_ACTION_UPDATE
UNCHANGED = registry_service_pb2.PLAN_ACTION_UNCHANGED
RETRY = registry_service_pb2.PLAN_ACTION_RETRY
DELETE = registry_service_pb2.PLAN_ACTION_DELETE


@dataclass(frozen=True, slots=True)
class Declared:
    """What a declaration comes to: the records that it changes or adds, and the plan to be told."""

    records: Sequence[FunctionRecord]
    plan: Sequence[registry_service_pb2.FunctionPlan]


def declare(
    stored: Mapping[str, FunctionRecord],
    request: registry_service_pb2.ApplyConfigRequest,
    now_ns: int,
    seen: Container[str],
) -> Declared:
    """Return what a request changes.

    A declaration that is stored already changes nothing, unless its deploy failed: then it is a
    revision of its own, and tried again. One that was stored as deployed but was not ``seen`` to
    be so, since it was deployed before this process or its host began, is deploying until it is.

    Raises:
        InvalidArgument: CONFIG_INVALID.
        FailedPrecondition: PORT_IN_USE.
        Aborted: ETAG_MISMATCH; OPERATION_IN_PROGRESS, a named function is being deleted.
    """
    found = validation.violations(request.functions)
    if found:
        raise errors.config_invalid(found)
    named = {spec.function_id: spec for spec in request.functions}
    for function_id in named:
        refuse_deleting(stored.get(function_id))
    pruned = [
        replace(record, deleting=True, update_time_ns=now_ns)
        for key, record in sorted(stored.items())
        if request.prune and key not in named and not record.deleting
    ]
    _check_etags(
        stored,
        request.etags,
        [record.function_id for record in pruned],
        guarded=is_guarded(request),
    )
    gone = {record.function_id for record in pruned}
    check_ports((record for key, record in stored.items() if key not in gone), named)
    declared = [
        _declared(stored.get(key), spec, now_ns, seen=key in seen) for key, spec in named.items()
    ]
    plan = [_plan(stored.get(key), spec, now_ns) for key, spec in named.items()]
    plan += [_deletion(record) for record in pruned]
    return Declared([*pruned, *(record for record in declared if record)], plan)


def redeclare(
    stored: Mapping[str, FunctionRecord],
    spec: function_pb2.FunctionSpec,
    now_ns: int,
    seen: Container[str],
) -> Declared:
    """Return what another declaration of one stored function changes.

    Raises:
        InvalidArgument: CONFIG_INVALID.
        FailedPrecondition: PORT_IN_USE.
        Aborted: OPERATION_IN_PROGRESS, it is being deleted.
    """
    found = validation.violations_of(spec, "function.spec")
    if found:
        raise errors.config_invalid(found)
    function_id = spec.function_id
    record = stored[function_id]
    refuse_deleting(record)
    check_ports(stored.values(), {function_id: spec})
    changed = _declared(record, spec, now_ns, seen=function_id in seen)
    return Declared([changed] if changed else [], [_plan(record, spec, now_ns)])


def refuse_deleting(record: FunctionRecord | None) -> None:
    """Refuse to change a function that is wished away.

    Raises:
        Aborted: OPERATION_IN_PROGRESS.
    """
    if record is not None and record.deleting:
        raise errors.operation_in_progress(record.function_id)


def check_etag(function_id: str, record: FunctionRecord | None, expected: str) -> None:
    """Refuse to change what is not as its caller has seen it; an empty etag expects nothing.

    Raises:
        Aborted: ETAG_MISMATCH.
    """
    actual = resources.etag(record) if record else NO_ETAG
    if expected and expected != actual:
        raise errors.etag_mismatch("function", function_id, expected, actual)


def is_guarded(request: registry_service_pb2.ApplyConfigRequest) -> bool:
    """Tell whether a request is only for what its caller has seen."""
    return bool(request.etags or request.pipeline_etags)


def check_ports(
    stored: Iterable[FunctionRecord], named: Mapping[str, function_pb2.FunctionSpec]
) -> None:
    """Refuse a port that another function is declared for, or still serves on.

    Raises:
        FailedPrecondition: PORT_IN_USE.
    """
    for record in stored:
        declared = named.get(record.function_id) or resources.decode_spec(record.spec)
        serving = resources.decode_spec(record.serving_spec)
        taken = {declared.trigger_port, serving.trigger_port} - {0}
        for function_id, spec in named.items():
            if record.deleting or record.function_id == function_id:
                continue
            if spec.trigger_port in taken:
                raise errors.port_in_use(spec.trigger_port, record.function_id)


def _check_etags(
    stored: Mapping[str, FunctionRecord],
    etags: Mapping[str, str],
    pruned: Iterable[str],
    *,
    guarded: bool,
) -> None:
    """Refuse what changed since it was read; ``guarded``, also to prune what was not read."""
    for function_id, expected in etags.items():
        check_etag(function_id, stored.get(function_id), expected)
    for function_id in pruned if guarded else ():
        check_etag(function_id, stored[function_id], etags.get(function_id, NO_ETAG))


def _declared(
    record: FunctionRecord | None, spec: function_pb2.FunctionSpec, now_ns: int, *, seen: bool
) -> FunctionRecord | None:
    """Return the record of a declared function; None when nothing changes."""
    if record is None:
        return FunctionRecord(
            function_id=spec.function_id,
            spec=resources.encode_spec(spec),
            revision=1,
            last_revision=1,
            state=FunctionState.UNINITIALIZED.value,
            deploy_state=DEPLOYING,
            create_time_ns=now_ns,
            update_time_ns=now_ns,
            declare_time_ns=now_ns,
        )
    again = replace(
        record, deploy_state=DEPLOYING, deploy_step="", deploy_error=b"", update_time_ns=now_ns
    )
    if _action(record, spec) == UNCHANGED:
        return None if seen or record.deploy_state == DEPLOYING else again
    number = record.last_revision + 1
    return replace(
        again,
        spec=resources.encode_spec(spec),
        revision=number,
        last_revision=number,
        declare_time_ns=now_ns,
    )


def _action(
    record: FunctionRecord | None, spec: function_pb2.FunctionSpec
) -> registry_service_pb2.PlanAction.ValueType:
    """Return what a declaration does to a function."""
    if record is None:
        return CREATE
    if record.spec != resources.encode_spec(spec):
        return UPDATE
    return RETRY if record.deploy_state == FAILED else UNCHANGED


def _plan(
    record: FunctionRecord | None, spec: function_pb2.FunctionSpec, now_ns: int
) -> registry_service_pb2.FunctionPlan:
    """Return what is told of a declared function."""
    action = _action(record, spec)
    after = _declared(record, spec, now_ns, seen=True) or record
    before = resources.decode_spec(record.spec) if record and action == UPDATE else spec
    return registry_service_pb2.FunctionPlan(
        function_id=spec.function_id,
        action=action,
        revision=after.revision if after else 0,
        changes=changes.differences(before, spec),
        etag=resources.etag(record) if record else NO_ETAG,
    )


def _deletion(record: FunctionRecord) -> registry_service_pb2.FunctionPlan:
    """Return what is told of a function that goes."""
    return registry_service_pb2.FunctionPlan(
        function_id=record.function_id, action=DELETE, etag=resources.etag(record)
    )
