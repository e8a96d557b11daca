# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608  # statements are put together from the constants of this module alone
"""The store in one SQLite file, in WAL mode, called inline: a commit takes well under a ms.

``synchronous=FULL``: what was announced must not be forgotten by a power cut. No write is on the
way of a wake, so nothing waits for the disk but deploys and the record of what happened.
"""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from contextlib import contextmanager
from dataclasses import replace
from typing import TYPE_CHECKING

from aetherless_registry import schema
from aetherless_registry.store import (
    Answer,
    Change,
    CompactedError,
    FunctionRecord,
    Store,
    StoreConflictError,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

    from aetherless_registry.store import MakeAnswer

BUSY_TIMEOUT_S = 5.0
PRIVATE_FILE = 0o600

_FIELDS = tuple(field.name for field in dataclasses.fields(FunctionRecord))
_COLUMNS = ", ".join(_FIELDS)
_MARKS = ", ".join("?" for _ in _FIELDS)


class SqliteStore(Store):
    """Keeps everything in the file ``path``, which it makes, 0600, when it is not there.

    Raises:
        schema.SchemaError: the file is of another version.
        sqlite3.Error: the file can't be opened, or is not a database.
    """

    def __init__(self, path: Path) -> None:
        path.touch(PRIVATE_FILE)
        self._lock = threading.RLock()
        self._db = sqlite3.connect(
            path, timeout=BUSY_TIMEOUT_S, isolation_level=None, check_same_thread=False
        )
        try:
            self._prepare()
        except BaseException:
            self._db.close()
            raise

    def _prepare(self) -> None:
        """Set the mode, and bring a new or older file to the present tables."""
        self._db.execute("PRAGMA journal_mode = WAL")
        self._db.execute("PRAGMA synchronous = FULL")
        with self._transaction():
            schema.migrate(self._db)

    def revision(self) -> int:
        """See Store."""
        with self._lock:
            return self._counter("revision")

    def get(self, function_id: str) -> FunctionRecord | None:
        """See Store."""
        query = f"SELECT {_COLUMNS} FROM functions WHERE function_id = ?"
        with self._lock:
            row = self._db.execute(query, (function_id,)).fetchone()
        return _record(row) if row else None

    def list(
        self, *, after: str = "", limit: int | None = None
    ) -> tuple[Sequence[FunctionRecord], int]:
        """See Store."""
        query = (
            f"SELECT {_COLUMNS} FROM functions WHERE function_id > ? ORDER BY function_id LIMIT ?"
        )
        with self._transaction():
            rows = self._db.execute(query, (after, -1 if limit is None else limit)).fetchall()
            return [_record(row) for row in rows], self._counter("revision")

    def pipelines(self) -> Mapping[str, bytes]:
        """See Store."""
        query = "SELECT pipeline_id, spec FROM pipelines ORDER BY pipeline_id"
        with self._lock:
            return dict(self._db.execute(query).fetchall())

    def commit(
        self,
        writes: Sequence[Write],
        answer: MakeAnswer | None = None,
        pipelines: Mapping[str, bytes] | None = None,
    ) -> Sequence[Change]:
        """See Store."""
        with self._transaction():
            revision = self._counter("revision")
            made = [self._apply(write, revision + 1 + n) for n, write in enumerate(writes)]
            self._set_counter("revision", revision + len(made))
            for pipeline_id, spec in (pipelines or {}).items():
                self._put_pipeline(pipeline_id, spec)
            if answer is not None:
                given = answer(made)
                self._db.execute(
                    "INSERT OR REPLACE INTO answers (request_id, digest, response)"
                    " VALUES (?, ?, ?)",
                    (given.request_id, given.digest, given.response),
                )
            return made

    def changes(self, start_revision: int, *, limit: int | None = None) -> Sequence[Change]:
        """See Store."""
        query = (
            f"SELECT {_COLUMNS}, removed FROM changes WHERE mod_revision >= ?"
            " ORDER BY mod_revision LIMIT ?"
        )
        with self._transaction():
            compacted = self._counter("compacted")
            if start_revision <= compacted:
                raise CompactedError(compacted)
            limit_or_all = -1 if limit is None else limit
            rows = self._db.execute(query, (start_revision, limit_or_all)).fetchall()
        records = [(_record(row[:-1]), bool(row[-1])) for row in rows]
        return [Change(record.mod_revision, removed, record) for record, removed in records]

    def compact(self, revision: int) -> None:
        """See Store."""
        with self._transaction():
            newest, compacted = self._counter("revision"), self._counter("compacted")
            limit = max(compacted, min(revision, newest))
            self._db.execute("DELETE FROM changes WHERE mod_revision <= ?", (limit,))
            self._set_counter("compacted", limit)

    def answer(self, request_id: str) -> Answer | None:
        """See Store."""
        query = "SELECT request_id, digest, response FROM answers WHERE request_id = ?"
        with self._lock:
            row = self._db.execute(query, (request_id,)).fetchone()
        return Answer(*row) if row else None

    def forget_answers(self, keep: int) -> None:
        """See Store."""
        with self._transaction():
            self._db.execute(
                "DELETE FROM answers WHERE sequence NOT IN"
                " (SELECT sequence FROM answers ORDER BY sequence DESC LIMIT ?)",
                (keep,),
            )

    def clear(self) -> None:
        """See Store."""
        with self._transaction():
            for table in ("functions", "pipelines", "changes", "answers"):
                self._db.execute(f"DELETE FROM {table}")
            self._set_counter("compacted", self._counter("revision"))

    def close(self) -> None:
        """See Store."""
        with self._lock:
            self._db.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        """Run what follows alone, and all of it or nothing."""
        with self._lock:
            self._db.execute("BEGIN IMMEDIATE")
            try:
                yield
            except BaseException:
                self._db.execute("ROLLBACK")
                raise
            self._db.execute("COMMIT")

    def _apply(self, write: Write, revision: int) -> Change:
        """Make one change and log it."""
        expected, function_id = write.record.mod_revision, write.record.function_id
        stored = self.get(function_id)
        if (stored.mod_revision if stored else 0) != expected or (write.remove and stored is None):
            raise StoreConflictError(function_id)
        record = replace(write.record, mod_revision=revision)
        values = _values(record)
        if write.remove:
            self._db.execute("DELETE FROM functions WHERE function_id = ?", (function_id,))
        else:
            self._db.execute(
                f"INSERT OR REPLACE INTO functions ({_COLUMNS}) VALUES ({_MARKS})", values
            )
        self._db.execute(
            f"INSERT INTO changes ({_COLUMNS}, removed) VALUES ({_MARKS}, ?)",
            (*values, int(write.remove)),
        )
        return Change(revision, write.remove, record)

    def _put_pipeline(self, pipeline_id: str, spec: bytes) -> None:
        """Store a pipeline's declaration; an empty one is removed."""
        if not spec:
            self._db.execute("DELETE FROM pipelines WHERE pipeline_id = ?", (pipeline_id,))
            return
        query = "INSERT OR REPLACE INTO pipelines (pipeline_id, spec) VALUES (?, ?)"
        self._db.execute(query, (pipeline_id, spec))

    def _counter(self, name: str) -> int:
        """Read a counter."""
        row = self._db.execute("SELECT value FROM counters WHERE name = ?", (name,)).fetchone()
        return int(row[0])

    def _set_counter(self, name: str, value: int) -> None:
        """Write a counter."""
        self._db.execute("UPDATE counters SET value = ? WHERE name = ?", (value, name))


def _values(record: FunctionRecord) -> tuple[object, ...]:
    """Return a record as the values of a row."""
    values = (getattr(record, field) for field in _FIELDS)
    return tuple(int(value) if isinstance(value, bool) else value for value in values)


def _record(row: tuple[object, ...]) -> FunctionRecord:
    """Return a row as a record."""
    fields = dict(zip(_FIELDS, row, strict=True))
    return FunctionRecord(**{**fields, "deleting": bool(fields["deleting"])})  # type: ignore[arg-type]
