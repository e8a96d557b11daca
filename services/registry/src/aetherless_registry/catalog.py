# SPDX-License-Identifier: Apache-2.0
"""The functions as stored: read, changed and watched here, each change told once it is stored."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import structlog

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_common.watch import Broadcaster, Subscription
from aetherless_registry import errors, resources, revisions
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
        self.store = store
        self._view = view
        self.clock = clock
        # Holds from before a commit until it is told, so that revisions are told in order; and
        # while what is to be stored depends on what is stored.
        self.lock = threading.RLock()
        self._news: Broadcaster[News] = Broadcaster()
        # Functions that were seen to be as they are declared since this process began.
        self.seen: set[str] = set()
        # Told of each change, in order, after it is stored and before watchers are told.
        self.on_changed: Callable[[Sequence[Change]], None] = lambda _: None

    # Reading

    def find(self, function_id: str) -> FunctionRecord | None:
        """Return a function as stored, or None."""
        return self.store.get(function_id)

    def get(self, function_id: str) -> FunctionRecord:
        """Return a function as stored.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
        """
        record = self.store.get(function_id)
        if record is None:
            raise errors.function_not_found(function_id)
        return record

    def records(self) -> tuple[Sequence[FunctionRecord], int]:
        """Return all functions by id, and the revision of the list."""
        return self.store.list()

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
        with self.lock:
            subscription = self._news.subscribe(limit)
            try:
                return subscription, self._past(start_revision), self.store.revision()
            except BaseException:
                subscription.close()
                raise

    def _past(self, start_revision: int) -> list[News]:
        """Return what a watcher has to know before the first news."""
        if start_revision == 0:
            records, _ = self.store.list()
            return [
                self._told(Change(each.mod_revision, removed=False, record=each))
                for each in records
            ]
        try:
            changes = self.store.changes(start_revision)
        except CompactedError as error:
            raise errors.revision_compacted(error.compact_revision) from error
        return [self._told(change) for change in changes]

    # What became of it

    def enter_step(self, function_id: str, revision: int, step: str) -> None:
        """Note the step that a deploy, or the repair of one, is at."""
        with self.lock:
            self.seen.discard(function_id)
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
        nothing = {"serving_revision": 0, "serving_spec": b"", "serving_time_ns": 0}
        serving = nothing if lost else {}
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
        with self.lock:
            record = self.store.get(function_id)
            if record is None or record.revision != revision:
                return
            serving = revisions.switched(record)
            self.put(replace(serving, deploy_state=DEPLOYED, deploy_step="", deploy_error=b""))

    def confirm(self, function_id: str) -> None:
        """Note that a function was seen to be as it is declared."""
        with self.lock:
            self.seen.add(function_id)

    def forget(self, function_id: str) -> None:
        """Remove a function that is wished away and has nothing left."""
        with self.lock:
            self.seen.discard(function_id)
            record = self.store.get(function_id)
            if record is not None and record.deleting:
                self.commit([Write(replace(record, update_time_ns=self.clock()), remove=True)])

    def observe(self, function_id: str, activities: Iterable[Activity]) -> None:
        """Move a function to the state that its instances show it to be in."""
        with self.lock:
            record = self.store.get(function_id)
            if record is None:
                return
            machine = FunctionMachine(FunctionState(record.state))
            for state in machine.observe(activities):
                log.info("moved", function=function_id, origin=record.state, target=state.value)
                record = self.update(record, state=state.value)

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
        with self.lock:
            record = self.store.get(function_id)
            if record is None:
                return
            event.function.CopyFrom(self.message(record))
            news = News(self.store.revision(), function_id, event, revisioned=False)
            self._news.publish(news)

    def _progress(self, function_id: str, revision: int, **changes: Any) -> None:
        """Change a function unless it was declared anew since ``revision``."""
        with self.lock:
            record = self.store.get(function_id)
            if record is not None and record.revision == revision:
                self.update(record, **changes)

    def update(self, record: FunctionRecord, **changes: Any) -> FunctionRecord:
        """Change a stored record; nothing happens when nothing changes."""
        changed = replace(record, **changes)
        return record if changed == record else self.put(changed)

    def put(self, changed: FunctionRecord) -> FunctionRecord:
        """Store a changed record, with the time, and tell it."""
        write = Write(replace(changed, update_time_ns=self.clock()))
        return self.commit([write])[0].record

    def commit(
        self,
        writes: Sequence[Write],
        answer: Callable[[Sequence[Change]], Answer] | None = None,
        pipelines: Mapping[str, bytes] | None = None,
    ) -> Sequence[Change]:
        """Store changes, then tell them."""
        changes = self.store.commit(writes, answer, pipelines)
        self.on_changed(changes)
        for change in changes:
            self._news.publish(self._told(change))
            if change.revision % COMPACT_EVERY == 0:
                self.store.compact(change.revision - KEEP_CHANGES)
                self.store.forget_answers(KEEP_ANSWERS)
        return changes

    def _told(self, change: Change) -> News:
        """Return a change as watchers are told it."""
        function_id = change.record.function_id
        statuses = () if change.removed else self._view.statuses(function_id)
        event = resources.change_event(change, statuses)
        return News(change.revision, function_id, event, revisioned=True)
