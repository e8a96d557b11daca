# SPDX-License-Identifier: Apache-2.0
"""The log of events: what happened to functions, kept for a time and told to watchers.

Nothing here is on the way of a wake or of a deploy's step: events are written after the fact. Those
of deploys are on disk when ``record`` returns; wakes and evictions are written together within
``BATCH_S``, so a SIGKILL loses at most that much of them. A log that can't be written (a full disk)
stops nobody: the events wait, and the newest ``LONGEST_BACKLOG`` are written when it can be.
"""

from __future__ import annotations

import threading
import time
from collections import deque
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from aetherless.registry.v1 import event_pb2
from aetherless_common import tracing
from aetherless_common.watch import Broadcaster, Subscription
from aetherless_registry import errors
from aetherless_registry.event_store import (
    EventClass,
    EventQuery,
    EventRecord,
    EventsCompactedError,
    EventStore,
    EventStoreError,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence

log = structlog.get_logger()
# How long an event that may be lost waits for others to be written with, in seconds.
BATCH_S = 0.1
# How long to wait with the next attempt while the store refuses, in seconds.
RETRY_S = 1.0
LONGEST_BACKLOG = 10_000
# Of each class this many are kept, and none that is older.
KEEP_EVENTS = 10_000
KEEP_NS = 7 * 24 * 3600 * 10**9
# The log is cut back whenever this many were added, and at the start.
FORGET_EVERY = 1_000
JOIN_S = 3.0

NORMAL = event_pb2.EVENT_SEVERITY_NORMAL
WARNING = event_pb2.EVENT_SEVERITY_WARNING


class EventLog:
    """Events on top of a store. Safe for use by many threads.

    Args:
        store: where they are kept.
        clock: the time in nanoseconds since the epoch.
    """

    def __init__(self, store: EventStore, clock: Callable[[], int] = time.time_ns) -> None:
        self._store = store
        self._clock = clock
        # Holds from before events are stored until they are told, so that both have one order.
        self._writing = threading.RLock()
        self._news: Broadcaster[EventRecord] = Broadcaster()
        self._changed = threading.Condition()
        self._waiting: deque[EventRecord] = deque(maxlen=LONGEST_BACKLOG)
        self._stopping = False
        self._until_forget = 0
        self._writer = threading.Thread(target=self._write_batches, name="events", daemon=True)

    def start(self) -> None:
        """Begin to write what is recorded without waiting."""
        self._writer.start()

    def stop(self) -> None:
        """End all watches, and write what waits."""
        self._news.close()
        with self._changed:
            self._stopping = True
            self._changed.notify_all()
        if self._writer.is_alive():
            self._writer.join(JOIN_S)
        self._flush()

    # Writing

    def record(
        self,
        function_id: str,
        reason: str,
        message: str,
        *,
        severity: event_pb2.EventSeverity.ValueType = NORMAL,
        metadata: Mapping[str, object] | None = None,
        revision: int = 0,
    ) -> None:
        """Record that something happened now, in the trace that this thread works for.

        On disk when this returns, unless the disk refuses.

        Args:
            function_id: the function; empty for what is of none.
            reason: what happened, in one word of capitals.
            message: what happened, for a reader.
            severity: NORMAL, or WARNING when somebody should look.
            metadata: the changing parts of the message; keys are lowerCamelCase.
            revision: the revision it is about; zero for none.
        """
        event = EventRecord(
            function_id=function_id,
            time_ns=self._clock(),
            reason=reason,
            message=message,
            severity=severity,
            revision=revision,
            metadata={key: str(value) for key, value in (metadata or {}).items()},
        )
        self.add(event)

    def add(self, *events: EventRecord) -> None:
        """Record events as they are; those of the class LIFECYCLE are on disk after this."""
        trace_id = _trace_id()
        traced = [each if each.trace_id else replace(each, trace_id=trace_id) for each in events]
        with self._changed:
            self._waiting.extend(traced)
            self._changed.notify_all()
        if any(each.event_class is EventClass.LIFECYCLE for each in traced):
            self._flush()

    def last_change(self) -> int:
        """Return the newest change of the function store that an event tells of."""
        return self._store.last_change()

    def newest(self, subject: str) -> EventRecord | None:
        """Return the newest event of a subject, for example of an instance's wakes.

        None when there is none, and when the store can't be read.
        """
        try:
            return self._store.newest(subject)
        except EventStoreError as error:
            log.warning("events not read", error=str(error))
            return None

    def _write_batches(self) -> None:
        """Write what was recorded without waiting, a little later, together."""
        while True:
            with self._changed:
                while not (self._waiting or self._stopping):
                    self._changed.wait()
                if self._stopping:
                    return
                self._changed.wait_for(lambda: self._stopping, BATCH_S)
            if not self._flush():
                with self._changed:
                    self._changed.wait_for(lambda: self._stopping, RETRY_S)

    def _flush(self) -> bool:
        """Write and tell what waits; tell whether it could be written."""
        with self._writing:
            with self._changed:
                batch = list(self._waiting)
                self._waiting.clear()
            if not batch:
                return True
            try:
                written = self._store.append(batch)
            except EventStoreError as error:
                log.warning("events not written", count=len(batch), error=str(error))
                with self._changed:
                    self._waiting = deque([*batch, *self._waiting], LONGEST_BACKLOG)
                    self._changed.notify_all()
                return False
            for each in written:
                self._news.publish(each)
            self._forget(len(written))
        return True

    def _forget(self, added: int) -> None:
        """Cut the log back now and then."""
        self._until_forget -= added
        if self._until_forget > 0:
            return
        try:
            self._store.forget(KEEP_EVENTS, self._clock() - KEEP_NS)
        except EventStoreError as error:
            log.warning("events not forgotten", error=str(error))
        self._until_forget = FORGET_EVERY

    # Reading

    def read(self, query: EventQuery) -> tuple[Sequence[EventRecord], int]:
        """Return events, and the newest event's number, from which a watch goes on without a gap.

        Raises:
            Internal: the store can't be read.
        """
        try:
            with self._writing:
                return self._store.read(query), self._store.last_sequence()
        except EventStoreError as error:
            raise errors.events_unreadable(str(error)) from error

    def watch(
        self, start: int, limit: int
    ) -> tuple[Subscription[EventRecord], Sequence[EventRecord], int]:
        """Return a subscription, the events to send before it, and the number they lead to.

        Args:
            start: the first number wanted; 0 for what comes from now on.
            limit: how many events may wait in the subscription.

        Raises:
            OutOfRange: REVISION_COMPACTED, some of them are not kept any more.
            Internal: the store can't be read.
        """
        with self._writing:
            subscription = self._news.subscribe(limit)
            try:
                past = self._store.since(start) if start else []
                return subscription, past, self._store.last_sequence()
            except EventsCompactedError as error:
                subscription.close()
                raise errors.events_compacted(error.compacted) from error
            except EventStoreError as error:
                subscription.close()
                raise errors.events_unreadable(str(error)) from error


def _trace_id() -> str:
    """Return the id of the trace that this thread works for; empty when nobody records one."""
    span = tracing.current()
    return span.trace_id if span.sampled else ""
