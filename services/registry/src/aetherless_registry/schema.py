# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: S608  # statements are put together from the constants of this module alone
"""The tables of the registry's SQLite files, and how an older file gets them.

A file's ``user_version`` counts the migrations that were done. A change of the tables is one more
migration at the end; what is released is never edited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import sqlite3
    from collections.abc import Sequence

_FUNCTION = """
    function_id      TEXT NOT NULL,
    spec             BLOB NOT NULL,
    revision         INTEGER NOT NULL CHECK (revision > 0),
    state            TEXT NOT NULL,
    deploy_state     TEXT NOT NULL CHECK (deploy_state IN ('DEPLOYING', 'DEPLOYED', 'FAILED')),
    create_time_ns   INTEGER NOT NULL,
    update_time_ns   INTEGER NOT NULL,
    serving_revision INTEGER NOT NULL,
    serving_spec     BLOB NOT NULL,
    deploy_step      TEXT NOT NULL,
    deploy_error     BLOB NOT NULL,
    deleting         INTEGER NOT NULL CHECK (deleting IN (0, 1)),
    mod_revision     INTEGER NOT NULL
"""
_FIRST = f"""
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('revision', 0), ('compacted', 0);
CREATE TABLE functions ({_FUNCTION}, PRIMARY KEY (function_id)) STRICT, WITHOUT ROWID;
CREATE TABLE changes ({_FUNCTION}, removed INTEGER NOT NULL, PRIMARY KEY (mod_revision)) STRICT;
CREATE TABLE answers (
    sequence   INTEGER PRIMARY KEY AUTOINCREMENT,
    request_id TEXT NOT NULL UNIQUE,
    digest     TEXT NOT NULL,
    response   BLOB NOT NULL
) STRICT;
"""
# Revisions are kept for a rollback. What served before was not, and when it was declared was not.
_KEPT_REVISIONS = ";\n".join(
    f"""
ALTER TABLE {table} ADD COLUMN last_revision INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {table} ADD COLUMN declare_time_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {table} ADD COLUMN serving_time_ns INTEGER NOT NULL DEFAULT 0;
ALTER TABLE {table} ADD COLUMN kept BLOB NOT NULL DEFAULT x'';
UPDATE {table} SET last_revision = revision, declare_time_ns = create_time_ns,
    serving_time_ns = iif(serving_revision, create_time_ns, 0)
"""
    for table in ("functions", "changes")
)
_PIPELINES = """
CREATE TABLE pipelines (
    pipeline_id TEXT PRIMARY KEY,
    spec        BLOB NOT NULL
) STRICT, WITHOUT ROWID;
"""
MIGRATIONS = (_FIRST, _KEPT_REVISIONS, _PIPELINES)
EVENT_MIGRATIONS = (
    """
CREATE TABLE counters (
    name  TEXT PRIMARY KEY,
    value INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
INSERT INTO counters VALUES ('last', 0), ('compacted', 0), ('change', 0);
CREATE TABLE events (
    sequence    INTEGER PRIMARY KEY,
    function_id TEXT NOT NULL,
    time_ns     INTEGER NOT NULL,
    reason      TEXT NOT NULL,
    message     TEXT NOT NULL,
    severity    INTEGER NOT NULL,
    revision    INTEGER NOT NULL,
    metadata    TEXT NOT NULL,
    trace_id    TEXT NOT NULL,
    event_class INTEGER NOT NULL,
    subject     TEXT NOT NULL,
    change      INTEGER NOT NULL
) STRICT;
CREATE INDEX events_by_class ON events (event_class, sequence);
CREATE INDEX events_by_function ON events (function_id, sequence);
CREATE INDEX events_by_subject ON events (subject, sequence) WHERE subject <> '';
""",
)
VERSION = len(MIGRATIONS)


class SchemaError(Exception):
    """The file was written by a later version of this software."""


def migrate(
    db: sqlite3.Connection, version: int = VERSION, migrations: Sequence[str] = MIGRATIONS
) -> None:
    """Bring a file, in the transaction that the caller began, to a version of the tables.

    Raises:
        SchemaError: it is of a later version.
    """
    found = int(db.execute("PRAGMA user_version").fetchone()[0])
    if found > version:
        raise SchemaError(f"schema {found}, expected {version} at most")
    for migration in migrations[found:version]:
        for statement in migration.split(";\n"):
            db.execute(statement)
    db.execute(f"PRAGMA user_version = {version}")
