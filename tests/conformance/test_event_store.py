# SPDX-License-Identifier: Apache-2.0
"""What every store of events owes, whichever keeps the data."""

from __future__ import annotations

import sqlite3
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import event_pb2
from aetherless_registry.event_store import (
    EventClass,
    EventQuery,
    EventRecord,
    EventsCompactedError,
    EventStore,
    EventStoreError,
)
from aetherless_registry.memory_events import MemoryEventStore
from aetherless_registry.sqlite_events import SqliteEventStore

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WARNING = event_pb2.EVENT_SEVERITY_WARNING
ALL = EventQuery()


def event(reason: str = "DEPLOYED", **fields: object) -> EventRecord:
    """Return an event to store."""
    first = EventRecord(function_id="f", time_ns=10**18, reason=reason, message="it happened")
    return replace(first, **fields)  # type: ignore[arg-type]


def numbers(store: EventStore, query: EventQuery = ALL) -> list[int]:
    """Return the numbers of the events that a query gives."""
    return [each.sequence for each in store.read(query)]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[EventStore]:
    """Give an empty store of each kind."""
    made: EventStore = MemoryEventStore()
    if request.param == "sqlite":
        made = SqliteEventStore(tmp_path / "events.db")
    yield made
    made.close()


def test_a_new_store_is_empty(store: EventStore) -> None:
    """Nothing is there, and everything that will be can be watched."""
    assert store.last_sequence() == store.last_change() == 0
    assert list(store.read(ALL)) == list(store.since(1)) == []
    assert store.newest("instances/x") is None


def test_an_event_comes_back_as_it_was_added(store: EventStore) -> None:
    """Every field survives, and the event is numbered."""
    wanted = event(
        severity=WARNING,
        revision=3,
        metadata={"client": "127.0.0.1:1", "é": "ü\n"},
        trace_id="0" * 31 + "1",
        event_class=EventClass.TROUBLE,
        subject="instances/f-r3-0",
        change=7,
    )
    assert list(store.append([wanted])) == [replace(wanted, sequence=1)]
    assert list(store.read(ALL)) == [replace(wanted, sequence=1)]
    assert store.newest("instances/f-r3-0") == replace(wanted, sequence=1)
    assert (store.last_sequence(), store.last_change()) == (1, 7)


def test_events_are_filtered_and_paged(store: EventStore) -> None:
    """By function, severity and number, from either end."""
    store.append([event(), event(function_id="g"), event(severity=WARNING)])
    store.append([event()])
    assert numbers(store) == [1, 2, 3, 4]
    assert numbers(store, EventQuery(function_id="f")) == [1, 3, 4]
    assert numbers(store, EventQuery(min_severity=WARNING)) == [3]
    assert numbers(store, EventQuery(after=1, limit=2)) == [2, 3]
    assert numbers(store, EventQuery(newest_first=True, limit=2)) == [4, 3]
    assert numbers(store, EventQuery(newest_first=True, before=3)) == [2, 1]


def test_each_class_is_cut_back_by_itself(store: EventStore) -> None:
    """Many wakes displace no deploy; what is gone is not in a gapless reading."""
    store.append([event()])
    store.append([event("WOKEN", event_class=EventClass.ROUTINE) for _ in range(5)])
    store.forget(2, 0)
    assert numbers(store) == [1, 5, 6]
    assert [each.sequence for each in store.since(5)] == [5, 6]
    with pytest.raises(EventsCompactedError) as raised:
        store.since(4)
    assert raised.value.compacted == 4


def test_old_events_are_cut_off_and_numbers_go_on(store: EventStore) -> None:
    """Also when nothing is left; the last change stays known."""
    store.append([event(time_ns=1, change=9), event(time_ns=3)])
    store.forget(100, 2)
    assert numbers(store) == [2]
    store.forget(100, 4)
    assert numbers(store) == []
    assert (store.last_sequence(), store.last_change()) == (2, 9)
    assert [each.sequence for each in store.append([event()])] == [3]
    assert [each.sequence for each in store.since(3)] == [3]


def test_a_cut_back_of_nothing_leaves_all_readable(store: EventStore) -> None:
    """No number counts as gone that is not."""
    store.append([event(), event()])
    store.forget(10, 0)
    assert [each.sequence for each in store.since(1)] == [1, 2]


def test_a_file_survives_its_process(tmp_path: Path) -> None:
    """Events, numbers and what was cut back are there when it is opened again; it is private."""
    path = tmp_path / "events.db"
    first = SqliteEventStore(path)
    first.append([event(), event(change=4)])
    first.forget(1, 0)
    first.close()
    again = SqliteEventStore(path)
    assert numbers(again) == [2]
    assert (again.last_sequence(), again.last_change()) == (2, 4)
    with pytest.raises(EventsCompactedError):
        again.since(1)
    again.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_file_of_something_else_is_refused(tmp_path: Path) -> None:
    """With this interface's own error, also for another version."""
    (tmp_path / "text").write_text("no database " * 100)
    with pytest.raises(EventStoreError):
        SqliteEventStore(tmp_path / "text")
    newer = sqlite3.connect(tmp_path / "newer")
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(EventStoreError, match="99"):
        SqliteEventStore(tmp_path / "newer")


def test_a_closed_store_refuses_with_its_own_error(tmp_path: Path) -> None:
    """So that nobody has to know what it is made of."""
    store = SqliteEventStore(tmp_path / "events.db")
    store.close()
    with pytest.raises(EventStoreError):
        store.append([event()])
