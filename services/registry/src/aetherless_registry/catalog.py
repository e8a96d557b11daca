# SPDX-License-Identifier: Apache-2.0
"""The functions: declared, moved and deleted here alone, each change stored before it is told."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_common.watch import Broadcaster, Subscription
from aetherless_registry import declare, errors, names, resources
from aetherless_registry.machine import FunctionMachine, FunctionState
from aetherless_registry.store import (
    DEPLOYED,
    DEPLOYING,
    FAILED,
    Answer,
    Change,
    CompactedError,
    FunctionRecord,
    Store,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping, Sequence

    from aetherless_common.errors import AetherlessError
    from aetherless_registry.machine import Activity
    from aetherless_registry.view import View

log = structlog.get_logger()
# The log of changes is cut back to KEEP_CHANGES whenever it is COMPACT_EVERY longer.
KEEP_CHANGES = 10_000
COMPACT_EVERY = 1_000
KEEP_ANSWERS = 1_000


@dataclass(frozen=True, slots=True)
class News:
    """What watchers are told: an event, and the revision that the store is at with it."""

    revision: int
    function_id: str
    event: registry_service_pb2.FunctionEvent
    # Whether it can be replayed from the store.
    revisioned: bool


class Catalog:
    """Functions on top of a store. Safe for use by many threads.

    Args:
        store: where they are kept.
        view: what their instances do.
        clock: the time in nanoseconds since the epoch.
    """

    def __init__(self, store: Store, view: View, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._view = view
        self._clock = clock
        # Holds from before a commit until it is told, so that revisions are told in order.
        self._lock = threading.RLock()
        self._news: Broadcaster[News] = Broadcaster()
        # Functions that were seen to be as they are declared since this process began.
        self._seen: set[str] = set()
        # Told of each function that was declared anew or wished away, after that is stored.
        self.on_declared: Callable[[str], None] = lambda _: None

    # Reading

    def find(self, function_id: str) -> FunctionRecord | None:
        """Return a function as stored, or None."""
        return self._store.get(function_id)

    def get(self, function_id: str) -> FunctionRecord:
        """Return a function as stored.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
        """
        record = self._store.get(function_id)
        if record is None:
            raise errors.function_not_found(function_id)
        return record

    def records(self) -> tuple[Sequence[FunctionRecord], int]:
        """Return all functions by id, and the revision of the list."""
        return self._store.list()

    def message(self, record: FunctionRecord) -> function_pb2.Function:
        """Return a function as its contract has it, with its instances."""
        return resources.function(record, self._view.statuses(record.function_id))

    def watch(self, start_revision: int, limit: int) -> tuple[Subscription[News], list[News], int]:
        """Return a subscription, the news to send before it, and the revision they lead to.

        Args:
            start_revision: the first revision wanted; 0 for the present state.
            limit: how many news may wait in the subscription.

        Raises:
            OutOfRange: REVISION_COMPACTED.
        """
        with self._lock:
            subscription = self._news.subscribe(limit)
            try:
                return subscription, self._past(start_revision), self._store.revision()
            except BaseException:
                subscription.close()
                raise

    def _past(self, start_revision: int) -> list[News]:
        """Return what a watcher has to know before the first news."""
        if start_revision == 0:
            records, _ = self._store.list()
            return [
                self._told(Change(each.mod_revision, removed=False, record=each))
                for each in records
            ]
        try:
            changes = self._store.changes(start_revision)
        except CompactedError as error:
            raise errors.revision_compacted(error.compact_revision) from error
        return [self._told(change) for change in changes]

    # Declaring

    def apply(
        self, request: registry_service_pb2.ApplyConfigRequest
    ) -> registry_service_pb2.ApplyConfigResponse:
        """Declare functions, all or none; a repeated request gets its first answer.

        Raises:
            InvalidArgument: CONFIG_INVALID, or INVALID_ARGUMENT for a request id used twice.
            FailedPrecondition: PORT_IN_USE.
            Aborted: OPERATION_IN_PROGRESS, a function is being deleted.
        """
        with self._lock:
            repeated = declare.remembered(self._store, request)
            if repeated is not None:
                return repeated
            stored = {record.function_id: record for record in self._store.list()[0]}
            wanted = declare.declare(stored, request, self._clock(), self._seen)
            response = registry_service_pb2.ApplyConfigResponse()

            def answer(changes: Sequence[Change]) -> Answer:
                self._respond(response, request, stored, changes)
                return declare.answer(request, response)

            writes = [Write(record) for record in wanted]
            if request.request_id:
                changes = self._commit(writes, answer)
            else:
                changes = self._commit(writes)
                self._respond(response, request, stored, changes)
        for change in changes:
            self.on_declared(change.record.function_id)
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
            self.message(functions[spec.function_id]) for spec in request.functions
        )
        response.revision = changes[-1].revision if changes else self._store.revision()

    def delete(self, function_id: str, expected_etag: str = "") -> int:
        """Store the wish that a function be gone; return the store's revision.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
            Aborted: ETAG_MISMATCH.
        """
        with self._lock:
            record = self.get(function_id)
            actual = resources.etag(record)
            if expected_etag and expected_etag != actual:
                raise errors.etag_mismatch(function_id, expected_etag, actual)
            self._update(record, deleting=True)
            revision = self._store.revision()
        self.on_declared(function_id)
        return revision

    # What became of it

    def enter_step(self, function_id: str, revision: int, step: str) -> None:
        """Note the step that a deploy, or the repair of one, is at."""
        with self._lock:
            self._seen.discard(function_id)
            self._progress(
                function_id, revision, deploy_state=DEPLOYING, deploy_step=step, deploy_error=b""
            )

    def fail_deploy(
        self, function_id: str, revision: int, step: str, error: AetherlessError, *, lost: bool
    ) -> None:
        """Note that a deploy failed, and where.

        Args:
            function_id: the function.
            revision: what was declared when the step began; a newer declaration is left alone.
            step: the step that failed.
            error: why, as the service said that failed.
            lost: whether what served until now can't be served any more either.
        """
        serving = {"serving_revision": 0, "serving_spec": b""} if lost else {}
        self._progress(
            function_id,
            revision,
            deploy_state=FAILED,
            deploy_step=step,
            deploy_error=resources.encode_error(error),
            **serving,
        )

    def complete_deploy(self, function_id: str, revision: int) -> None:
        """Note that a declared revision is deployed, routed and serves."""
        with self._lock:
            record = self._store.get(function_id)
            if record is None or record.revision != revision:
                return
            self._update(
                record,
                deploy_state=DEPLOYED,
                deploy_step="",
                deploy_error=b"",
                serving_revision=revision,
                serving_spec=record.spec,
            )

    def confirm(self, function_id: str) -> None:
        """Note that a function was seen to be as it is declared."""
        with self._lock:
            self._seen.add(function_id)

    def forget(self, function_id: str) -> None:
        """Remove a function that is wished away and has nothing left."""
        with self._lock:
            self._seen.discard(function_id)
            record = self._store.get(function_id)
            if record is not None and record.deleting:
                self._commit([Write(replace(record, update_time_ns=self._clock()), remove=True)])

    def observe(self, function_id: str, activities: Iterable[Activity]) -> None:
        """Move a function to the state that its instances show it to be in."""
        with self._lock:
            record = self._store.get(function_id)
            if record is None:
                return
            machine = FunctionMachine(FunctionState(record.state))
            for state in machine.observe(activities):
                log.info("moved", function=function_id, origin=record.state, target=state.value)
                record = self._update(record, state=state.value)

    # Telling

    def tell_progress(self, function_id: str, progress: function_pb2.DeployProgress) -> None:
        """Tell watchers how a deploy goes on; not kept."""
        kind = registry_service_pb2.FUNCTION_EVENT_TYPE_PROGRESS
        self._tell(function_id, registry_service_pb2.FunctionEvent(type=kind, progress=progress))

    def tell_wake(self, function_id: str, wake: function_pb2.WakeNotice) -> None:
        """Tell watchers of a wake; not kept."""
        kind = registry_service_pb2.FUNCTION_EVENT_TYPE_WAKE
        self._tell(function_id, registry_service_pb2.FunctionEvent(type=kind, wake=wake))

    def close(self) -> None:
        """End all watches."""
        self._news.close()

    def _tell(self, function_id: str, event: registry_service_pb2.FunctionEvent) -> None:
        """Publish an event that is not kept."""
        with self._lock:
            record = self._store.get(function_id)
            if record is None:
                return
            event.function.CopyFrom(self.message(record))
            news = News(self._store.revision(), function_id, event, revisioned=False)
            self._news.publish(news)

    def _progress(self, function_id: str, revision: int, **changes: Any) -> None:
        """Change a function unless it was declared anew since ``revision``."""
        with self._lock:
            record = self._store.get(function_id)
            if record is not None and record.revision == revision:
                self._update(record, **changes)

    def _update(self, record: FunctionRecord, **changes: Any) -> FunctionRecord:
        """Store a changed record and tell it; nothing happens when nothing changed."""
        changed = replace(record, **changes)
        if changed == record:
            return record
        write = Write(replace(changed, update_time_ns=self._clock()))
        return self._commit([write])[0].record

    def _commit(
        self,
        writes: Sequence[Write],
        answer: Callable[[Sequence[Change]], Answer] | None = None,
    ) -> Sequence[Change]:
        """Store changes, then tell them."""
        changes = self._store.commit(writes, answer)
        for change in changes:
            self._news.publish(self._told(change))
            if change.revision % COMPACT_EVERY == 0:
                self._store.compact(change.revision - KEEP_CHANGES)
                self._store.forget_answers(KEEP_ANSWERS)
        return changes

    def _told(self, change: Change) -> News:
        """Return a change as watchers are told it."""
        function_id = change.record.function_id
        statuses = () if change.removed else self._view.statuses(function_id)
        event = resources.change_event(change, statuses)
        return News(change.revision, function_id, event, revisioned=True)


def function_id_of(name: str) -> str:
    """Return the id in ``functions/{function}``.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, it is not such a name.
    """
    function_id = names.bare(name, names.FUNCTIONS)
    if not function_id or function_id == name:
        raise errors.invalid_argument("name", f"must be functions/{{function}}, is {name!r}")
    return function_id
