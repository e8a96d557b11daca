# SPDX-License-Identifier: Apache-2.0
"""What every store of the registry owes, whichever keeps the data."""

from __future__ import annotations

import dataclasses
import sqlite3
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest

from aetherless_registry import schema
from aetherless_registry.memory_store import MemoryStore
from aetherless_registry.schema import SchemaError
from aetherless_registry.sqlite_store import SqliteStore
from aetherless_registry.store import (
    DEPLOYED,
    DEPLOYING,
    Answer,
    Change,
    CompactedError,
    FunctionRecord,
    Store,
    StoreConflictError,
    Write,
)

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path


def record(function_id: str = "f", **fields: object) -> FunctionRecord:
    """Return a function to store."""
    first = FunctionRecord(
        function_id=function_id,
        spec=b"\x00spec",
        revision=1,
        state="UNINITIALIZED",
        deploy_state=DEPLOYING,
        create_time_ns=10**18,
        update_time_ns=10**18,
    )
    return replace(first, **fields)  # type: ignore[arg-type]


@pytest.fixture(params=["memory", "sqlite"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Store]:
    """Give an empty store of each kind."""
    made: Store = MemoryStore()
    if request.param == "sqlite":
        made = SqliteStore(tmp_path / "registry.db")
    yield made
    made.close()


def test_a_new_store_is_empty(store: Store) -> None:
    """Nothing is there, at revision 0, and everything that will be can be watched."""
    assert store.revision() == 0
    assert store.get("f") is None
    assert store.list() == ([], 0)
    assert list(store.changes(1)) == []


def test_a_record_comes_back_as_it_was_put(store: Store) -> None:
    """Every field survives, and the change is numbered."""
    wanted = record(
        serving_revision=3,
        serving_spec=b"old",
        deploy_step="set-route",
        deploy_error=b"\xff",
        deleting=True,
        last_revision=7,
        declare_time_ns=10**18 + 1,
        serving_time_ns=10**18 + 2,
        kept=b"\x01kept",
    )
    (change,) = store.commit([Write(wanted)])
    assert change.revision == store.revision() == 1
    assert store.get("f") == change.record == replace(wanted, mod_revision=1)


def test_each_change_has_a_revision_of_its_own(store: Store) -> None:
    """Revisions are counted over all functions, in the order given."""
    made = store.commit([Write(record("b")), Write(record("a"))])
    assert [(c.revision, c.record.function_id) for c in made] == [(1, "b"), (2, "a")]
    assert list(store.changes(1)) == list(made)
    assert list(store.changes(2)) == list(made)[1:]
    assert list(store.changes(1, limit=1)) == list(made)[:1]


def test_a_removal_is_a_change_that_keeps_the_last_record(store: Store) -> None:
    """After it the function is gone, and may be made anew."""
    (made,) = store.commit([Write(record())])
    (gone,) = store.commit([Write(made.record, remove=True)])
    assert gone.removed
    assert gone.record == replace(made.record, mod_revision=2)
    assert store.get("f") is None
    assert store.commit([Write(record())])[0].revision == 3


def test_a_commit_is_all_or_nothing(store: Store) -> None:
    """One stale record refuses the whole commit, its answer included."""
    store.commit([Write(record("a"))])
    stale = record("a", deploy_state=DEPLOYED)
    with pytest.raises(StoreConflictError) as raised:
        store.commit([Write(record("b")), Write(stale)], lambda _: Answer("id", "d", b""))
    assert raised.value.function_id == "a"
    assert store.get("b") is None
    assert store.answer("id") is None
    assert store.revision() == 1


@pytest.mark.parametrize("remove", [False, True])
def test_what_vanished_is_a_conflict(store: Store, *, remove: bool) -> None:
    """A function that is not there can't be changed or removed."""
    with pytest.raises(StoreConflictError):
        store.commit([Write(record(mod_revision=7), remove=remove)])
    with pytest.raises(StoreConflictError):
        store.commit([Write(record(), remove=True)])


def test_lists_are_ordered_and_can_go_on(store: Store) -> None:
    """A list is by id, and says which revision it is of."""
    store.commit([Write(record(name)) for name in ("c", "a", "b")])
    records, revision = store.list(after="a", limit=1)
    assert [each.function_id for each in records] == ["b"]
    assert revision == 3
    assert [each.function_id for each in store.list()[0]] == ["a", "b", "c"]


def test_compacted_changes_are_refused(store: Store) -> None:
    """Who asks for a change that is gone is told what is kept; functions stay."""
    store.commit([Write(record(name)) for name in ("a", "b", "c")])
    store.compact(2)
    with pytest.raises(CompactedError) as raised:
        store.changes(2)
    assert raised.value.compact_revision == 2
    assert [change.revision for change in store.changes(3)] == [3]
    assert len(store.list()[0]) == 3


def test_compaction_never_goes_back_nor_beyond(store: Store) -> None:
    """A smaller revision changes nothing, a larger one stops at the newest change."""
    store.commit([Write(record("a")), Write(record("b"))])
    store.compact(10)
    store.compact(1)
    with pytest.raises(CompactedError):
        store.changes(2)
    assert list(store.changes(3)) == []
    assert store.commit([Write(record("c"))])[0].revision == 3


def test_answers_are_kept_with_the_changes(store: Store) -> None:
    """An answer is made from the changes it belongs to; the oldest are forgotten first."""
    for number in range(3):

        def answer(made: Sequence[Change], number: int = number) -> Answer:
            return Answer(f"id{number}", "digest", bytes([made[0].revision]))

        store.commit([Write(record(f"f{number}"))], answer)
    assert store.answer("id2") == Answer("id2", "digest", b"\x03")
    store.forget_answers(keep=2)
    assert store.answer("id0") is None
    assert store.answer("id1") is not None


def test_clear_forgets_but_counts_on(store: Store) -> None:
    """No function comes back, and no watcher takes the new ones for the old."""
    store.commit([Write(record())], lambda _: Answer("id", "d", b""))
    store.clear()
    assert store.list() == ([], 1)
    assert store.answer("id") is None
    with pytest.raises(CompactedError):
        store.changes(1)
    assert store.commit([Write(record())])[0].revision == 2


def test_many_threads_lose_no_change(store: Store) -> None:
    """Commits of many threads get distinct, gapless revisions."""

    def commit(number: int) -> None:
        for step in range(20):
            store.commit([Write(record(f"f{number}-{step}"))])

    threads = [threading.Thread(target=commit, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert [change.revision for change in store.changes(1)] == list(range(1, 81))


def test_sqlite_survives_its_process(tmp_path: Path) -> None:
    """What was committed is there for the next one, although the file was never closed."""
    path = tmp_path / "registry.db"
    first = SqliteStore(path)
    (change,) = first.commit([Write(record())])
    second = SqliteStore(path)
    assert second.get("f") == change.record
    assert second.revision() == 1
    first.close()
    second.close()
    assert path.stat().st_mode & 0o777 == 0o600


def test_sqlite_is_strict_and_in_wal_mode(tmp_path: Path) -> None:
    """The file refuses values of another type, and readers do not wait for the writer."""
    path = tmp_path / "registry.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        assert db.execute("PRAGMA journal_mode").fetchone() == ("wal",)
        with pytest.raises(sqlite3.IntegrityError):
            db.execute("UPDATE counters SET value = 'x'")


def test_sqlite_takes_an_older_file_over(tmp_path: Path) -> None:
    """A file of the first version gets the later columns, with what can be known of them."""
    path = tmp_path / "registry.db"
    later = {"last_revision", "declare_time_ns", "serving_time_ns", "kept"}
    old = [f.name for f in dataclasses.fields(FunctionRecord) if f.name not in later]
    wanted = record(revision=4, serving_revision=3, serving_spec=b"old", mod_revision=9)
    values = [getattr(wanted, name) for name in old]
    marks = ", ".join("?" for _ in old)
    with sqlite3.connect(path, isolation_level=None) as db:
        schema.migrate(db, 1)
        db.execute(f"INSERT INTO functions ({', '.join(old)}) VALUES ({marks})", values)  # noqa: S608  # names of columns
        db.execute("UPDATE counters SET value = 9 WHERE name = 'revision'")
    store = SqliteStore(path)
    known = replace(
        wanted,
        last_revision=4,
        declare_time_ns=wanted.create_time_ns,
        serving_time_ns=wanted.create_time_ns,
    )
    assert store.get("f") == known
    (change,) = store.commit([Write(replace(known, kept=b"kept"))])
    assert store.get("f") == change.record
    store.close()
    SqliteStore(path).close()


def test_sqlite_refuses_another_version(tmp_path: Path) -> None:
    """A file of a later version is not touched."""
    path = tmp_path / "registry.db"
    SqliteStore(path).close()
    with sqlite3.connect(path) as db:
        db.execute("PRAGMA user_version = 99")
    with pytest.raises(SchemaError):
        SqliteStore(path)


def test_pipelines_are_stored_with_functions(store: Store) -> None:
    """Put, replaced and removed in the same commit; of one that fails nothing is stored."""
    store.commit([Write(record())], pipelines={"b": b"1", "a": b"2"})
    assert list(store.pipelines().items()) == [("a", b"2"), ("b", b"1")]
    store.commit([], pipelines={"a": b"3", "b": b"", "gone": b""})
    assert store.pipelines() == {"a": b"3"}
    with pytest.raises(StoreConflictError):
        store.commit([Write(record(mod_revision=7))], pipelines={"a": b"", "c": b"4"})
    assert store.pipelines() == {"a": b"3"}
    assert store.revision() == 1
    store.clear()
    assert store.pipelines() == {}
