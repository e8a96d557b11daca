# SPDX-License-Identifier: Apache-2.0
"""What the registry remembers of what happened, as an interface.

One counter numbers the events. They are kept by class, so that many of one class displace no other:
ten thousand wakes leave last week's failed deploy in its place.
``tests/conformance/test_event_store.py`` says what an implementation owes.
"""

from __future__ import annotations

import abc
import enum
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from aetherless.registry.v1 import event_pb2

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence


class EventClass(enum.IntEnum):
    """What an event is kept with."""

    # Declared, deployed, deleted, lost: few, and missed when they are gone.
    LIFECYCLE = 0
    # Wakes and evictions that went well: many.
    ROUTINE = 1
    # Wakes that failed, and programs that ended by themselves: as many as clients try.
    TROUBLE = 2


@dataclass(frozen=True, slots=True, kw_only=True)
class EventRecord:
    """Something that happened; as event_pb2.Event, with what the registry looks it up by."""

    function_id: str
    # Nanoseconds since the epoch.
    time_ns: int
    reason: str
    message: str
    severity: event_pb2.EventSeverity.ValueType = event_pb2.EVENT_SEVERITY_NORMAL
    revision: int = 0
    metadata: Mapping[str, str] = field(default_factory=dict)
    trace_id: str = ""
    event_class: EventClass = EventClass.LIFECYCLE
    # What it is about below the function, for example an instance's name.
    subject: str = ""
    # The revision of the function store's change that it tells of; zero for none.
    change: int = 0
    # Set by the store.
    sequence: int = 0


@dataclass(frozen=True, slots=True, kw_only=True)
class EventQuery:
    """Which events are wanted; the defaults want all, the oldest first."""

    function_id: str = ""
    min_severity: int = 0
    # Only events with a sequence number above and below these.
    after: int = 0
    before: int | None = None
    newest_first: bool = False
    limit: int | None = None


class EventsCompactedError(Exception):
    """Events were asked for of which some are not kept any more."""

    def __init__(self, compacted: int) -> None:
        super().__init__(f"events up to {compacted} are not kept any more")
        self.compacted = compacted


class EventStoreError(Exception):
    """Events can't be written or read now, for example since the disk is full."""


class EventStore(abc.ABC):
    """Events. Safe for use by many threads; every method may raise EventStoreError."""

    @abc.abstractmethod
    def append(self, events: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """Add events, all or none; return them with their numbers, in the order given.

        When this returns, they survive the death of the process and of the host.
        """

    @abc.abstractmethod
    def read(self, query: EventQuery) -> Sequence[EventRecord]:
        """Return the events that are wanted and still kept."""

    @abc.abstractmethod
    def since(self, sequence: int) -> Sequence[EventRecord]:
        """Return all events from this number on, without a gap.

        Raises:
            EventsCompactedError: some of them are not kept any more.
        """

    @abc.abstractmethod
    def last_sequence(self) -> int:
        """Return the newest event's number, also when it is not kept any more; zero for none."""

    @abc.abstractmethod
    def last_change(self) -> int:
        """Return the newest change of the function store that an event tells of."""

    @abc.abstractmethod
    def newest(self, subject: str) -> EventRecord | None:
        """Return the newest event that is kept of a subject."""

    @abc.abstractmethod
    def forget(self, keep: int, before_ns: int) -> None:
        """Forget, of each class, all but the ``keep`` newest, and those from before a time.

        Numbers are not used again, and the last change stays known.
        """

    @abc.abstractmethod
    def close(self) -> None:
        """Let go of what the store holds open."""
