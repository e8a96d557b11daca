# SPDX-License-Identifier: Apache-2.0
"""Logs of functions: the tail, following, rotation."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

import pytest

from aetherless_common.errors import NotFound
from aetherless_common.logfiles import rotate
from aetherless_snapshotter.idranges import IdRange
from aetherless_snapshotter.logs import Logs
from framework.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path


def never() -> bool:
    """Say that the reader is gone."""
    return False


def tail(logs: Logs, lines: int) -> bytes:
    """Return what a reader gets who does not follow."""
    return b"".join(logs.tail("f", lines, follow=False, alive=never))


@pytest.mark.parametrize(
    ("lines", "expected"),
    [(1, b"three\n"), (2, b"two\nthree\n"), (10, b"one\ntwo\nthree\n"), (-1, b"one\ntwo\nthree\n")],
)
def test_tail_begins_at_a_line(tmp_path: Path, lines: int, expected: bytes) -> None:
    """The last lines are whole lines."""
    logs = Logs(tmp_path)
    logs.path("f").write_bytes(b"one\ntwo\nthree\n")
    assert tail(logs, lines) == expected
    assert logs.last_lines("f", lines) == expected


def test_tail_counts_a_line_that_is_not_ended(tmp_path: Path) -> None:
    """A last line without its newline is a line."""
    logs = Logs(tmp_path)
    logs.path("f").write_bytes(b"one\ntwo")
    assert tail(logs, 1) == b"two"


def test_tail_over_many_blocks(tmp_path: Path) -> None:
    """Lines are found beyond the first block read from the end."""
    logs = Logs(tmp_path)
    lines = [f"{number:06d}".encode() * 10 for number in range(5000)]
    logs.path("f").write_bytes(b"\n".join(lines) + b"\n")
    assert tail(logs, 4000).splitlines() == lines[1000:]


def test_no_log_is_a_typed_error(tmp_path: Path) -> None:
    """A function that never ran has no log."""
    with pytest.raises(NotFound) as caught:
        tail(Logs(tmp_path), 1)
    assert caught.value.reason == "LOG_NOT_FOUND"


def test_follow_sees_later_lines_and_a_truncation(tmp_path: Path) -> None:
    """What is written later is sent, also after a rotation made the file short."""
    logs = Logs(tmp_path)
    path = logs.path("f")
    path.write_bytes(b"old\n" * 100)
    gone = threading.Event()
    blocks = logs.tail("f", 1, follow=True, alive=lambda: not gone.is_set())
    assert next(blocks) == b"old\n"
    with path.open("ab") as file:
        file.write(b"new\n")
    assert next(blocks) == b"new\n"
    os.truncate(path, 0)
    with path.open("ab") as file:
        file.write(b"after\n")
    assert next(blocks) == b"after\n"
    gone.set()
    assert list(blocks) == []


def test_rotation_keeps_the_file_and_one_older_generation(tmp_path: Path) -> None:
    """The inode stays, because an appending process and a snapshot know it."""
    path = Logs(tmp_path).path("f")
    path.write_bytes(b"x" * 4096 + b"0123456789")
    inode = path.stat().st_ino
    assert rotate(path, 10)
    assert path.stat().st_ino == inode
    assert path.stat().st_size == 0
    assert (tmp_path / "f.log.1").read_bytes() == b"0123456789"
    assert not rotate(path, 10)
    assert not rotate(tmp_path / "gone.log", 10)


def test_holes_are_not_counted(tmp_path: Path) -> None:
    """A program that does not append leaves one where its log was cut."""
    path = tmp_path / "f.log"
    path.write_bytes(b"")
    os.truncate(path, 1 << 30)
    assert not rotate(path, 4096)


def test_a_flood_is_bounded(tmp_path: Path) -> None:
    """However fast a log is written, it is cut, from the start of the watch to its end."""
    cap = 1 << 20
    path = Logs(tmp_path).path("f")
    path.write_bytes(b"x" * 2 * cap)
    rotation = Logs(tmp_path, cap).watch()
    thread = threading.Thread(target=rotation.run)
    thread.start()
    highest = 0
    with path.open("ab", buffering=0) as file:
        for _ in range(200):
            file.write(b"y" * cap)
            highest = max(highest, path.stat().st_size)
    wait_until(lambda: path.stat().st_size <= cap, "it is cut", 10)
    rotation.stop()
    thread.join(10)
    assert highest < 150 * cap
    assert cap <= (tmp_path / "f.log.1").stat().st_size <= 2 * cap


def test_since_returns_what_came_after(tmp_path: Path) -> None:
    """A position from before a program's truncation means all there is."""
    logs = Logs(tmp_path)
    assert (logs.position("f"), logs.since("f", 0, 99)) == (0, b"")
    logs.path("f").write_bytes(b"one\ntwo\n")
    assert logs.position("f") == len(b"one\ntwo\n")
    assert logs.since("f", 4, 99) == b"two\n"
    assert logs.since("f", 100, 99) == b"one\ntwo\n"
    assert logs.since("f", 0, 3) == b"wo\n"


@pytest.mark.parametrize("before", [b"", b"before\n", b"b" * 4100])
def test_since_looks_beyond_rotations(tmp_path: Path, before: bytes) -> None:
    """What was written since the position is found in both generations, and nothing older."""
    logs = Logs(tmp_path, 4096)
    path = logs.path("f")
    path.write_bytes(before)
    position = logs.position("f")
    with path.open("ab", buffering=0) as file:
        file.write(words := b"words\n" * 700)
        assert logs.cut(path)
        assert logs.since("f", position, 1 << 20) == words[-4096:]
        file.write(b"last\n")
        assert logs.since("f", position, 11) == b"words\nlast\n"
        assert logs.since("f", position + len(words) - 6, 99) == b"words\nlast\n"
        file.write(b"x" * 4096)
        assert logs.cut(path)
        file.write(b"end\n")
    assert not logs.cut(path)
    assert logs.since("f", position, 6) == b"xxend\n"
    assert logs.since("f", logs.position("f"), 99) == b""


def test_what_is_written_during_a_cut_is_kept(tmp_path: Path) -> None:
    """A program's last words are there though they came while the log was copied."""
    logs = Logs(tmp_path, 64 << 20)
    path = logs.path("f")
    path.write_bytes(b"x" * (65 << 20))
    position = logs.position("f")
    thread = threading.Thread(target=logs.cut, args=[path])
    thread.start()
    older = path.with_suffix(".log.1")
    wait_until(lambda: older.exists() and older.stat().st_size, "the copy begins")
    with path.open("ab") as file:
        file.write(b"last words\n")
    thread.join(60)
    assert logs.since("f", position, 99) == b"last words\n"


def test_a_log_goes_with_its_older_generation(tmp_path: Path) -> None:
    """Nothing of it is left."""
    logs = Logs(tmp_path, 10)
    logs.path("f").write_bytes(b"0123456789!")
    assert logs.cut(logs.path("f"))
    logs.remove("f")
    logs.remove("f")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.root
def test_the_log_belongs_to_the_handler(tmp_path: Path) -> None:
    """A program may open /dev/stdout anew."""
    path = Logs(tmp_path / "logs").ensure("f", IdRange(0x70000000))
    assert path.stat().st_uid == 0x70000000 + 1000
    assert path.stat().st_mode & 0o777 == 0o600
