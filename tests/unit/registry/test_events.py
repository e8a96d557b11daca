# SPDX-License-Identifier: Apache-2.0
"""The log of events: what is written at once, what together, and what watchers are told."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless_common import tracing
from aetherless_common.errors import OutOfRange, ResourceExhausted
from aetherless_registry import events
from aetherless_registry.event_store import (
    EventClass,
    EventQuery,
    EventRecord,
    EventStoreError,
)
from aetherless_registry.events import EventLog
from aetherless_registry.memory_events import MemoryEventStore
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

ALL = EventQuery()


class FullStore(MemoryEventStore):
    """A store on a disk that is full for a while."""

    full = False

    def append(self, added: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """See EventStore."""
        if self.full:
            raise EventStoreError("database or disk is full")
        return super().append(added)


NOW = 10**18


def clock() -> int:
    """Return the tests' time."""
    return NOW


def wake() -> EventRecord:
    """Return an event that is written together with others."""
    return EventRecord(
        function_id="f",
        time_ns=NOW,
        reason="WOKEN",
        message="woken",
        event_class=EventClass.ROUTINE,
    )


@pytest.fixture
def store() -> FullStore:
    """Give a store."""
    return FullStore()


@pytest.fixture
def log(store: FullStore) -> Iterator[EventLog]:
    """Give a log that runs."""
    made = EventLog(store, clock)
    made.start()
    yield made
    made.stop()


def test_what_is_recorded_is_stored_at_once(log: EventLog, store: FullStore) -> None:
    """With the values of the metadata as text, and the time."""
    log.record("f", "DEPLOY_FAILED", "no", severity=events.WARNING, metadata={"n": 1}, revision=2)
    (stored,) = store.read(ALL)
    assert (stored.reason, stored.revision, stored.metadata) == ("DEPLOY_FAILED", 2, {"n": "1"})
    assert stored.time_ns == NOW


def test_wakes_are_written_together(store: FullStore) -> None:
    """Before the writer comes round they wait; what is written at once takes them along."""
    log = EventLog(store, clock)
    log.add(wake())
    log.add(wake())
    assert not store.read(ALL)
    log.record("f", "DEPLOYED", "it serves")
    assert [each.reason for each in store.read(ALL)] == ["WOKEN", "WOKEN", "DEPLOYED"]


def test_wakes_are_written_soon(log: EventLog, store: FullStore) -> None:
    """With nothing else happening."""
    log.add(wake())
    wait_until(lambda: store.read(ALL), "the wake to be written")


def test_the_end_writes_what_waits(store: FullStore) -> None:
    """A registry that is told to end loses nothing."""
    log = EventLog(store, clock)
    log.start()
    log.add(wake())
    log.stop()
    assert len(store.read(ALL)) == 1


def test_an_event_is_of_the_trace_that_its_thread_works_for(log: EventLog) -> None:
    """As the W3C context says; one that nobody records is none."""
    trace = "4bf92f3577b34da6a3ce929d0e0e4736"
    for flags in ("01", "00"):
        span = tracing.Span((("traceparent", f"00-{trace}-00f067aa0ba902b7-{flags}"),))
        with tracing.use(span):
            log.record("f", "DECLARED", "it is declared")
    log.record("f", "DEPLOYED", "it serves")
    assert [each.trace_id for each in log.read(ALL)[0]] == [trace, "", ""]


def test_a_full_disk_stops_nobody(
    log: EventLog, store: FullStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Events wait in their order, and are written when there is room again."""
    monkeypatch.setattr(events, "RETRY_S", 0.01)
    store.full = True
    log.record("f", "DECLARED", "it is declared")
    log.add(wake())
    assert not store.read(ALL)
    store.full = False
    log.record("f", "DEPLOYED", "it serves")
    assert [each.reason for each in store.read(ALL)] == ["DECLARED", "WOKEN", "DEPLOYED"]


def test_a_full_disk_is_tried_again(
    log: EventLog, store: FullStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also when nothing new happens."""
    monkeypatch.setattr(events, "RETRY_S", 0.01)
    store.full = True
    log.record("f", "DECLARED", "it is declared")
    store.full = False
    wait_until(lambda: store.read(ALL), "the event to be written")


def test_a_watch_has_no_gap(log: EventLog) -> None:
    """What a list ends with and what a watch begins with are neighbours."""
    log.record("f", "ONE", "1")
    listed, last = log.read(ALL)
    log.record("f", "TWO", "2")
    subscription, past, at = log.watch(last + 1, 10)
    log.record("f", "THREE", "3")
    with subscription:
        live = subscription.get(1)
    assert live is not None
    assert [each.sequence for each in (*listed, *past, live)] == [1, 2, 3]
    assert at == 2


def test_what_is_forgotten_can_not_be_watched(
    log: EventLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The error says up to where."""
    monkeypatch.setattr(events, "KEEP_EVENTS", 2)
    monkeypatch.setattr(events, "FORGET_EVERY", 1)
    for number in range(5):
        log.record("f", "N", str(number))
    assert [each.sequence for each in log.read(ALL)[0]] == [4, 5]
    with pytest.raises(OutOfRange) as raised:
        log.watch(3, 10)
    assert raised.value.reason == "REVISION_COMPACTED"
    assert raised.value.metadata["compactRevision"] == "3"


def test_old_events_are_forgotten(store: FullStore) -> None:
    """By the age that is documented."""
    now = [events.KEEP_NS]
    log = EventLog(store, clock=lambda: now[0])
    log.record("f", "OLD", "old")
    now[0] = 2 * events.KEEP_NS + 1
    again = EventLog(store, clock=lambda: now[0])
    again.record("f", "NEW", "new")
    assert [each.reason for each in store.read(ALL)] == ["NEW"]


def test_a_slow_watcher_is_told(log: EventLog) -> None:
    """It lost events, and knows."""
    subscription, _, _ = log.watch(0, 1)
    log.record("f", "ONE", "1")
    log.record("f", "TWO", "2")
    assert subscription.get(1) is not None
    with pytest.raises(ResourceExhausted) as raised:
        subscription.get(1)
    assert raised.value.reason == "WATCHER_TOO_SLOW"
