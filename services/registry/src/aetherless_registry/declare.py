# SPDX-License-Identifier: Apache-2.0
"""What a declaration changes. Pure: the stored functions and a request in, records out."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless.registry.v1 import registry_service_pb2
from aetherless_registry import errors, resources, validation
from aetherless_registry.machine import FunctionState
from aetherless_registry.store import DEPLOYING, FAILED, Answer, FunctionRecord

if TYPE_CHECKING:
    from collections.abc import Container, Mapping

    from aetherless.registry.v1 import function_pb2
    from aetherless_registry.store import Store


def declare(
    stored: Mapping[str, FunctionRecord],
    request: registry_service_pb2.ApplyConfigRequest,
    now_ns: int,
    seen: Container[str],
) -> list[FunctionRecord]:
    """Return the records that a request changes or adds.

    A declaration that is stored already changes nothing, unless its deploy failed: then it is a
    revision of its own, and tried again. One that was stored as deployed but was not ``seen`` to
    be so, since it was deployed before this process or its host began, is deploying until it is.

    Raises:
        InvalidArgument: CONFIG_INVALID.
        FailedPrecondition: PORT_IN_USE.
        Aborted: OPERATION_IN_PROGRESS, a named function is being deleted.
    """
    found = validation.violations(request.functions)
    if found:
        raise errors.config_invalid(found)
    named = {spec.function_id: spec for spec in request.functions}
    for function_id in named:
        if function_id in stored and stored[function_id].deleting:
            raise errors.operation_in_progress(function_id)
    pruned = [
        replace(record, deleting=True, update_time_ns=now_ns)
        for record in stored.values()
        if request.prune and record.function_id not in named and not record.deleting
    ]
    gone = {record.function_id for record in pruned}
    _check_ports([record for key, record in stored.items() if key not in gone], named)
    declared = (
        _declared(stored.get(key), spec, now_ns, seen=key in seen) for key, spec in named.items()
    )
    return [*pruned, *(record for record in declared if record)]


def remembered(
    store: Store, request: registry_service_pb2.ApplyConfigRequest
) -> registry_service_pb2.ApplyConfigResponse | None:
    """Return the answer that the request was given before, if it was.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, the id was used for another request.
    """
    given = store.answer(request.request_id) if request.request_id else None
    if given is None:
        return None
    if given.digest != _digest(request):
        raise errors.invalid_argument("request_id", "was used for another request")
    return registry_service_pb2.ApplyConfigResponse.FromString(given.response)


def answer(
    request: registry_service_pb2.ApplyConfigRequest,
    response: registry_service_pb2.ApplyConfigResponse,
) -> Answer:
    """Return the answer to remember for a request."""
    return Answer(request.request_id, _digest(request), response.SerializeToString())


def _digest(request: registry_service_pb2.ApplyConfigRequest) -> str:
    """Return what tells two requests apart."""
    return hashlib.sha256(request.SerializeToString(deterministic=True)).hexdigest()


def _check_ports(
    stored: list[FunctionRecord], named: Mapping[str, function_pb2.FunctionSpec]
) -> None:
    """Refuse a port that another function is declared for, or still serves on."""
    for record in stored:
        declared = named.get(record.function_id) or resources.decode_spec(record.spec)
        serving = resources.decode_spec(record.serving_spec)
        taken = {declared.trigger_port, serving.trigger_port} - {0}
        for function_id, spec in named.items():
            if record.deleting or record.function_id == function_id:
                continue
            if spec.trigger_port in taken:
                raise errors.port_in_use(spec.trigger_port, record.function_id)


def _declared(
    record: FunctionRecord | None, spec: function_pb2.FunctionSpec, now_ns: int, *, seen: bool
) -> FunctionRecord | None:
    """Return the record of a declared function; None when nothing changes."""
    data = resources.encode_spec(spec)
    if record is None:
        return FunctionRecord(
            function_id=spec.function_id,
            spec=data,
            revision=1,
            state=FunctionState.UNINITIALIZED.value,
            deploy_state=DEPLOYING,
            create_time_ns=now_ns,
            update_time_ns=now_ns,
        )
    same = record.spec == data and record.deploy_state != FAILED
    if same and (seen or record.deploy_state == DEPLOYING):
        return None
    return replace(
        record,
        spec=data,
        revision=record.revision if same else record.revision + 1,
        deploy_state=DEPLOYING,
        deploy_step="",
        deploy_error=b"",
        update_time_ns=now_ns,
    )
