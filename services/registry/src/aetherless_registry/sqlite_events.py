# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608  # statements are put together from the constants of this module alone
"""Events in an SQLite file of their own, so that no deploy waits for the record of a wake.

``synchronous=FULL``, as the functions have it: what was told must not be forgotten by a power cut.
"""

from __future__ import annotations

import dataclasses
import json
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless_registry import schema
from aetherless_registry.event_store import (
    EventClass,
    EventQuery,
    EventRecord,
    EventsCompactedError,
    EventStore,
    EventStoreError,
)
from aetherless_registry.schema import EVENT_MIGRATIONS

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

BUSY_TIMEOUT_S = 5.0
PRIVATE_FILE = 0o600

_FIELDS = tuple(field.name for field in dataclasses.fields(EventRecord))
_COLUMNS = ", ".join(_FIELDS)
_MARKS = ", ".join("?" for _ in _FIELDS)


class SqliteEventStore(EventStore):
    """Keeps events in the file ``path``, which it makes, 0600, when it is not there.

    Raises:
        EventStoreError: the file can't be opened, is not a database, or is of another version.
    """

    def __init__(self, path: Path) -> None:
        self._lock = threading.RLock()
        try:
            path.touch(PRIVATE_FILE)
            self._db = sqlite3.connect(
                path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
            )
        except (OSError, sqlite3.Error) as error:
            raise EventStoreError(str(error)) from error
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Set the mode and make the tables."""
        with self._transaction("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL"):
            try:
                schema.migrate(self._db, len(EVENT_MIGRATIONS), EVENT_MIGRATIONS)
            except schema.SchemaError as error:
                raise EventStoreError(str(error)) from error

    def append(self, events: Sequence[EventRecord]) -> Sequence[EventRecord]:
        """See EventStore."""
        with self._transaction():
            last, change = self._counter("last"), self._counter("change")
            made = [replace(each, sequence=last + 1 + n) for n, each in enumerate(events)]
            rows = [_values(each) for each in made]
            self._db.executemany(f"INSERT INTO events ({_COLUMNS}) VALUES ({_MARKS})", rows)
            self._set_counter("last", last + len(made))
            self._set_counter("change", max([change, *(each.change for each in made)]))
        return made

    def read(self, query: EventQuery) -> Sequence[EventRecord]:
        """See EventStore."""
        conditions, values = ["sequence > ?", "severity >= ?"], [query.after, query.min_severity]
        arguments: list[object] = [*values]
        if query.before is not None:
            conditions.append("sequence < ?")
            arguments.append(query.before)
        if query.function_id:
            conditions.append("function_id = ?")
            arguments.append(query.function_id)
        statement = (
            f"SELECT {_COLUMNS} FROM events WHERE {' AND '.join(conditions)}"
            f" ORDER BY sequence {'DESC' if query.newest_first else 'ASC'} LIMIT ?"
        )
        arguments.append(-1 if query.limit is None else query.limit)
        with self._reading():
            return [_record(row) for row in self._db.execute(statement, arguments).fetchall()]

    def since(self, sequence: int) -> Sequence[EventRecord]:
        """See EventStore."""
        with self._transaction():
            compacted = self._counter("compacted")
            if sequence <= compacted:
                raise EventsCompactedError(compacted)
            return self.read(EventQuery(after=sequence - 1))

    def last_sequence(self) -> int:
        """See EventStore."""
        with self._reading():
            return self._counter("last")

    def last_change(self) -> int:
        """See EventStore."""
        with self._reading():
            return self._counter("change")

    def newest(self, subject: str) -> EventRecord | None:
        """See EventStore."""
        statement = (
            f"SELECT {_COLUMNS} FROM events WHERE subject = ? AND subject <> ''"
            " ORDER BY sequence DESC LIMIT 1"
        )
        with self._reading():
            row = self._db.execute(statement, (subject,)).fetchone()
        return _record(row) if row else None

    def forget(self, keep: int, before_ns: int) -> None:
        """See EventStore."""
        condition = (
            "time_ns < :before OR sequence <= (SELECT sequence FROM events AS other"
            " WHERE other.event_class = :class ORDER BY sequence DESC LIMIT 1 OFFSET :keep)"
        )
        with self._transaction():
            compacted = self._counter("compacted")
            for kind in EventClass:
                statement = (
                    f"DELETE FROM events WHERE event_class = :class AND ({condition})"
                    " RETURNING sequence"
                )
                values = {"class": int(kind), "before": before_ns, "keep": keep}
                gone = self._db.execute(statement, values).fetchall()
                compacted = max([compacted, *(int(row[0]) for row in gone)])
            self._set_counter("compacted", compacted)

    def close(self) -> None:
        """See EventStore."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _reading(self) -> Iterator[None]:
        """Run what follows alone, with this module's errors."""
        with self._lock:
            try:
                yield
            except sqlite3.Error as error:
                raise EventStoreError(str(error)) from error

    @contextmanager
    def _transaction(self, *before: str) -> Iterator[None]:
        """Run statements, then what follows alone, and all of it or nothing."""
        with self._reading():
            for statement in before:
                self._db.execute(statement)
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
                self._db.execute("COMMIT")
            except BaseException:
                if self._db.in_transaction:
                    self._db.execute("ROLLBACK")
                raise

    def _counter(self, name: str) -> int:
        """Read a counter."""
        row = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _set_counter(self, name: str, value: int) -> None:
        """Write a counter."""
        self._db.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))


def _values(event: EventRecord) -> tuple[object, ...]:
    """Return an event as the values of a row."""
    fields = {name: getattr(event, name) for name in _FIELDS}
    fields["metadata"] = json.dumps(dict(event.metadata), ensure_ascii=False)
    return tuple(fields.values())


def _record(row: tuple[object, ...]) -> EventRecord:
    """Return a row as an event."""
    fields = dict(zip(_FIELDS, row, strict=True))
    fields["metadata"] = json.loads(str(fields["metadata"]))
    fields["event_class"] = EventClass(fields["event_class"])  # type: ignore[arg-type]
    return EventRecord(**fields)  # type: ignore[arg-type]
