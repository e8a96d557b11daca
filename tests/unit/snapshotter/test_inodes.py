# SPDX-License-Identifier: Apache-2.0
"""Which files keep their inode numbers."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from aetherless_common.errors import FailedPrecondition
from aetherless_snapshotter import inodes
from aetherless_snapshotter.sandbox_spec import HeldFile, Tree

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

TREE = Tree("fn", "/srv/app")


@pytest.fixture
def layer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[int]:
    """Return a descriptor of a layer that is ``tmp_path``, whose numbers may be any."""
    monkeypatch.setattr(inodes, "MAX_INODE", 1 << 62)
    descriptor = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield descriptor
    os.close(descriptor)


def held(layer: int, *names: str) -> list[HeldFile]:
    """Return the held files among some of the sandbox's."""
    return inodes.held_files("hello", TREE, layer, names)


def test_files_of_the_layer_by_rising_numbers(tmp_path: Path, layer: int) -> None:
    """Those of other trees, and what is not in the layer, are left out."""
    (tmp_path / "data").mkdir()
    files = [tmp_path / "data" / "b", tmp_path / "a"]
    for file in files:
        file.write_text("x")
    found = held(
        layer, "/srv/app/a", "/srv/app/data/b", "/srv/app/gone", "/srv/other", "/srv/app2/a"
    )
    numbers = {file.stat().st_ino: str(file.relative_to(tmp_path)) for file in files}
    assert found == [HeldFile("fn", numbers[each], each) for each in sorted(numbers)]


def test_a_file_of_two_names_is_held_once(tmp_path: Path, layer: int) -> None:
    """A number can be had once only."""
    (tmp_path / "a").write_text("x")
    (tmp_path / "b").hardlink_to(tmp_path / "a")
    assert [file.path for file in held(layer, "/srv/app/b", "/srv/app/a")] == ["a"]


def test_no_link_is_followed(tmp_path: Path, layer: int) -> None:
    """A layer's links, and what is no regular file, lead nowhere."""
    (tmp_path / "etc").symlink_to("/etc")
    (tmp_path / "passwd").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    assert held(layer, *(f"/srv/app/{n}" for n in ("etc/passwd", "passwd", "fifo", "folder"))) == []


def test_too_many_are_refused(tmp_path: Path, layer: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """More than the init takes is told before the snapshot is made."""
    monkeypatch.setattr(inodes, "MAX_HELD_FILES", 2)
    for name in "abc":
        (tmp_path / name).write_text("x")
    assert len(held(layer, "/srv/app/a", "/srv/app/b")) == 2
    with pytest.raises(FailedPrecondition) as raised:
        held(layer, "/srv/app/a", "/srv/app/b", "/srv/app/c")
    assert raised.value.reason == "NOT_CHECKPOINTABLE"


def test_numbers_that_take_long_to_reach_are_refused(
    tmp_path: Path, layer: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A clone's layer gets them by making as many files: not millions, before each wake."""
    (tmp_path / "late").write_text("x")
    monkeypatch.setattr(inodes, "MAX_INODE", (tmp_path / "late").stat().st_ino - 1)
    with pytest.raises(FailedPrecondition) as raised:
        held(layer, "/srv/app/late")
    assert raised.value.reason == "NOT_CHECKPOINTABLE"


def test_a_name_that_is_no_text_is_refused(tmp_path: Path, layer: int) -> None:
    """The message shows its bytes."""
    name = os.fsdecode(b"late\xff")
    (tmp_path / name).write_text("x")
    with pytest.raises(FailedPrecondition) as raised:
        held(layer, f"/srv/app/{name}")
    assert raised.value.reason == "NOT_CHECKPOINTABLE"
    assert "late\\xff" in raised.value.message
