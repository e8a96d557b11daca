# SPDX-License-Identifier: Apache-2.0
"""What users declare, change, lead back and wish away: judged, stored, and handed on."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_registry import answers, declare, masks, pipelines, resources, revisions
from aetherless_registry.store import Write

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from google.protobuf.message import Message

    from aetherless_registry.answers import Repeatable, Response
    from aetherless_registry.catalog import Catalog
    from aetherless_registry.store import Answer, Change, FunctionRecord

    Functions = Mapping[str, FunctionRecord]


class Declarations:
    """Changes of what is declared. Safe for use by many threads.

    Args:
        catalog: where the functions are kept.
        on_declared: told of each function that was declared anew or wished away, once stored.
        on_pipelines: told when pipelines were declared anew or wished away, once stored.
    """

    def __init__(
        self,
        catalog: Catalog,
        on_declared: Callable[[str], None],
        on_pipelines: Callable[[], None] = lambda: None,
    ) -> None:
        self._catalog = catalog
        self._on_declared = on_declared
        self._on_pipelines = on_pipelines

    def apply(self, request: messages.ApplyConfigRequest) -> messages.ApplyConfigResponse:
        """Declare functions and pipelines, all or none; a repeated request gets its first answer.

        Raises:
            InvalidArgument: CONFIG_INVALID, or INVALID_ARGUMENT for a request id used twice.
            FailedPrecondition: PORT_IN_USE; FUNCTION_IN_USE, by a pipeline that stays.
            Aborted: ETAG_MISMATCH; OPERATION_IN_PROGRESS, a function is being deleted.
        """
        catalog = self._catalog
        with catalog.lock:
            given = self._given(request, messages.ApplyConfigResponse)
            if given is not None:
                return given
            now = catalog.clock()
            stored = self._stored()
            declared = declare.declare(stored, request, now, catalog.seen)
            left = {**stored, **_by_id(declared.records)}.values()
            piped = pipelines.declare(catalog.store.pipelines(), request, left)
            response = messages.ApplyConfigResponse(plan=declared.plan, pipeline_plan=piped.plan)

            def fill(functions: Functions, revision: int) -> None:
                wanted = [functions[spec.function_id] for spec in request.functions]
                response.functions.extend(map(catalog.message, wanted))
                response.revision = revision

            changed = self._carry_out(request, response, declared.records, fill, piped.writes)
        if not _only_validates(request):
            self._on_pipelines()
        return self._announced(changed, response)

    def update(self, request: messages.UpdateFunctionRequest) -> messages.UpdateFunctionResponse:
        """Change fields of what is declared; a repeated request gets its first answer.

        Raises:
            InvalidArgument: CONFIG_INVALID, or INVALID_ARGUMENT for an unknown path of the mask.
            NotFound: FUNCTION_NOT_FOUND.
            FailedPrecondition: PORT_IN_USE; FUNCTION_IN_USE, a pipeline needs its channel.
            Aborted: ETAG_MISMATCH; OPERATION_IN_PROGRESS, it is being deleted.
        """
        catalog, function_id = (
            self._catalog,
            resources.function_id_of(request.function.name, "function.name"),
        )
        with catalog.lock:
            given = self._given(request, messages.UpdateFunctionResponse)
            if given is not None:
                return given
            record = catalog.get(function_id)
            declare.check_etag(function_id, record, request.function.etag)
            present = resources.decode_spec(record.spec)
            spec = masks.merged(present, request.function.spec, request.update_mask.paths)
            declared = declare.redeclare(self._stored(), spec, catalog.clock(), catalog.seen)
            self._check_pipelines(declared.records)
            response = messages.UpdateFunctionResponse(plan=declared.plan[0])

            def fill(functions: Functions, _: int) -> None:
                response.function.CopyFrom(catalog.message(functions[function_id]))

            changed = self._carry_out(request, response, declared.records, fill)
        return self._announced(changed, response)

    def roll_back(
        self, request: messages.RollbackFunctionRequest
    ) -> messages.RollbackFunctionResponse:
        """Declare a revision that is kept; a repeated request gets its first answer.

        Raises:
            InvalidArgument: INVALID_ARGUMENT for a negative revision or a request id used twice.
            NotFound: FUNCTION_NOT_FOUND, REVISION_NOT_FOUND.
            FailedPrecondition: PORT_IN_USE, another function has the port it had; FUNCTION_IN_USE,
                it had no channel then, and a pipeline needs one.
            Aborted: ETAG_MISMATCH; OPERATION_IN_PROGRESS, it is being deleted.
        """
        catalog, function_id = self._catalog, resources.function_id_of(request.name)
        with catalog.lock:
            given = self._given(request, messages.RollbackFunctionResponse)
            if given is not None:
                return given
            record = catalog.get(function_id)
            declare.check_etag(function_id, record, request.etag)
            declare.refuse_deleting(record)
            goal = revisions.goal(record, request.revision)
            declare.check_ports(self._stored().values(), {function_id: goal.spec})
            moved = revisions.rolled_back(record, goal, catalog.clock())
            self._check_pipelines([moved] if moved else [])
            response = messages.RollbackFunctionResponse()

            def fill(functions: Functions, _: int) -> None:
                response.function.CopyFrom(catalog.message(functions[function_id]))

            changed = self._carry_out(request, response, [moved] if moved else [], fill)
        return self._announced(changed, response)

    def delete(self, function_id: str, expected_etag: str = "") -> int:
        """Store the wish that a function be gone; return the store's revision.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
            FailedPrecondition: FUNCTION_IN_USE.
            Aborted: ETAG_MISMATCH.
        """
        with self._catalog.lock:
            record = self._catalog.get(function_id)
            declare.check_etag(function_id, record, expected_etag)
            self._check_pipelines([replace(record, deleting=True)])
            self._catalog.update(record, deleting=True)
            revision = self._catalog.store.revision()
        self._on_declared(function_id)
        return revision

    def _check_pipelines(self, changed: Iterable[FunctionRecord]) -> None:
        """Refuse changes of functions that a pipeline can't do with."""
        left = {**self._stored(), **_by_id(changed)}
        pipelines.check_functions(self._catalog.store.pipelines(), left.values())

    def _stored(self) -> dict[str, FunctionRecord]:
        """Return all functions by id."""
        return {record.function_id: record for record in self._catalog.records()[0]}

    def _given(self, request: Repeatable, response_type: type[Response]) -> Response | None:
        """Return the answer that a request was given before; none to one that changes nothing."""
        if _only_validates(request):
            return None
        return answers.remembered(self._catalog.store, request, response_type)

    def _carry_out(
        self,
        request: Repeatable,
        response: Message,
        records: Sequence[FunctionRecord],
        fill: Callable[[Functions, int], None],
        piped: Mapping[str, bytes] | None = None,
    ) -> Sequence[Change]:
        """Store records, and remember the answer with them; or only say how it would be.

        Args:
            request: what was asked; its answer is remembered when it has an id.
            response: the answer.
            records: what is to be stored.
            fill: fills in the answer from the functions as they are then, and the revision.
            piped: what is to be stored of pipelines.
        """
        catalog, stored = self._catalog, self._stored()
        if _only_validates(request):
            fill({**stored, **_by_id(records)}, catalog.store.revision())
            return []

        def answer(changes: Sequence[Change]) -> Answer:
            revision = changes[-1].revision if changes else catalog.store.revision()
            fill({**stored, **_by_id(change.record for change in changes)}, revision)
            return answers.answer(request, response)

        writes = [Write(record) for record in records]
        if request.request_id:
            return catalog.commit(writes, answer, piped)
        changes = catalog.commit(writes, pipelines=piped)
        answer(changes)
        return changes

    def _announced(self, changes: Iterable[Change], response: Response) -> Response:
        """Have what was stored carried out, and return the answer."""
        for change in changes:
            self._on_declared(change.record.function_id)
        return response


def _only_validates(request: Message) -> bool:
    """Tell whether a request asks what it would do."""
    return bool(getattr(request, "validate_only", False))


def _by_id(records: Iterable[FunctionRecord]) -> dict[str, FunctionRecord]:
    """Return records by their functions' ids."""
    return {record.function_id: record for record in records}
