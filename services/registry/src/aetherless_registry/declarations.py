# SPDX-License-Identifier: Apache-2.0
"""What users declare and wish away: judged, stored, and handed to who makes it be."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.registry.v1 import registry_service_pb2
from aetherless_registry import declare, errors, resources
from aetherless_registry.store import Write

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

    from aetherless_registry.catalog import Catalog
    from aetherless_registry.store import Answer, Change, FunctionRecord


class Declarations:
    """Changes of what is declared. Safe for use by many threads.

    Args:
        catalog: where the functions are kept.
        on_declared: told of each function that was declared anew or wished away, once stored.
    """

    def __init__(self, catalog: Catalog, on_declared: Callable[[str], None]) -> None:
        self._catalog = catalog
        self._on_declared = on_declared

    def apply(
        self, request: registry_service_pb2.ApplyConfigRequest
    ) -> registry_service_pb2.ApplyConfigResponse:
        """Declare functions, all or none; a repeated request gets its first answer.

        Raises:
            InvalidArgument: CONFIG_INVALID, or INVALID_ARGUMENT for a request id used twice.
            FailedPrecondition: PORT_IN_USE.
            Aborted: OPERATION_IN_PROGRESS, a function is being deleted.
        """
        with self._catalog.lock:
            repeated = declare.remembered(self._catalog.store, request)
            if repeated is not None:
                return repeated
            stored = {record.function_id: record for record in self._catalog.store.list()[0]}
            wanted = declare.declare(stored, request, self._catalog.clock(), self._catalog.seen)
            response = registry_service_pb2.ApplyConfigResponse()

            def answer(changes: Sequence[Change]) -> Answer:
                self._respond(response, request, stored, changes)
                return declare.answer(request, response)

            writes = [Write(record) for record in wanted]
            if request.request_id:
                changes = self._catalog.commit(writes, answer)
            else:
                changes = self._catalog.commit(writes)
                self._respond(response, request, stored, changes)
        for change in changes:
            self._on_declared(change.record.function_id)
        return response

    def _respond(
        self,
        response: registry_service_pb2.ApplyConfigResponse,
        request: registry_service_pb2.ApplyConfigRequest,
        stored: Mapping[str, FunctionRecord],
        changes: Sequence[Change],
    ) -> None:
        """Fill in the answer to a declaration from what it changed."""
        functions = {**stored, **{change.record.function_id: change.record for change in changes}}
        response.functions.extend(
            self._catalog.message(functions[spec.function_id]) for spec in request.functions
        )
        response.revision = changes[-1].revision if changes else self._catalog.store.revision()

    def delete(self, function_id: str, expected_etag: str = "") -> int:
        """Store the wish that a function be gone; return the store's revision.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
            Aborted: ETAG_MISMATCH.
        """
        with self._catalog.lock:
            record = self._catalog.get(function_id)
            actual = resources.etag(record)
            if expected_etag and expected_etag != actual:
                raise errors.etag_mismatch(function_id, expected_etag, actual)
            self._catalog.update(record, deleting=True)
            revision = self._catalog.store.revision()
        self._on_declared(function_id)
        return revision
