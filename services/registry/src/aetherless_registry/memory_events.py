# SPDX-License-Identifier: Apache-2.0
"""Events that die with their process: for tests, held to the same promises as the real ones."""

from __future__ import annotations

import threading
from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless_registry.event_store import (
    EventClass,
    EventQuery,
    EventRecord,
    EventsCompactedError,
    EventStore,
)

if TYPE_CHECKING:
    from collections.abc import Sequence


class MemoryEventStore(EventStore):
    """Keeps events in a list."""

    def __init__(self) -> None:
        self._lock = threading.RLock()
        self._events: list[EventRecord] = []
        self._last = 0
        self._compacted = 0
        self._change = 0

    def append(self, events: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """See EventStore."""
        with self._lock:
            made = [replace(each, sequence=self._last + 1 + n) for n, each in enumerate(events)]
            self._events += made
            self._last += len(made)
            self._change = max([self._change, *(each.change for each in made)])
            return made

    def read(self, query: EventQuery) -> Sequence[EventRecord]:
        """See EventStore."""
        with self._lock:
            found = [each for each in self._events if _is_wanted(each, query)]
        return (found[::-1] if query.newest_first else found)[: query.limit]

    def since(self, sequence: int) -> Sequence[EventRecord]:
        """See EventStore."""
        with self._lock:
            if sequence <= self._compacted:
                raise EventsCompactedError(self._compacted)
            return self.read(EventQuery(after=sequence - 1))

    def last_sequence(self) -> int:
        """See EventStore."""
        return self._last

    def last_change(self) -> int:
        """See EventStore."""
        return self._change

    def newest(self, subject: str) -> EventRecord | None:
        """See EventStore."""
        with self._lock:
            return next((each for each in self._events[::-1] if each.subject == subject), None)

    def forget(self, keep: int, before_ns: int) -> None:
        """See EventStore."""
        with self._lock:
            gone: set[int] = set()
            for kind in EventClass:
                of_kind = [each for each in self._events if each.event_class is kind]
                gone |= {each.sequence for each in of_kind[: max(0, len(of_kind) - keep)]}
            gone |= {each.sequence for each in self._events if each.time_ns < before_ns}
            self._events = [each for each in self._events if each.sequence not in gone]
            self._compacted = max(self._compacted, *gone, 0)

    def close(self) -> None:
        """See EventStore."""


def _is_wanted(event: EventRecord, query: EventQuery) -> bool:
    """Tell whether a query asks for an event."""
    return (
        query.function_id in {"", event.function_id}
        and event.severity >= query.min_severity
        and event.sequence > query.after
        and (query.before is None or event.sequence < query.before)
    )
