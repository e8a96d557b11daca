# SPDX-License-Identifier: Apache-2.0
"""Copies of functions' folders."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from aetherless_common.errors import FailedPrecondition, InvalidArgument, ResourceExhausted
from aetherless_snapshotter.idranges import IdRange
from aetherless_snapshotter.roots import Roots

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aetherless.snapshotter.v1 import instance_pb2

    MakeWorkload = Callable[..., instance_pb2.Workload]

IDS = IdRange(0x70010000)


@pytest.fixture
def app(tmp_path: Path) -> Path:
    """Return a small function's folder."""
    folder = tmp_path / "app"
    (folder / "lib").mkdir(parents=True)
    (folder / "handler.py").write_text("v1")
    (folder / "lib" / "data").write_text("data")
    return folder


@pytest.mark.root
def test_a_folder_is_copied_once_and_owned_by_the_function(
    app: Path, tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """Edits in place reach no revision that was copied before."""
    roots = Roots(tmp_path / "roots")
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app))
    root = roots.ensure(workload, IDS)
    assert root.path == app
    assert (root.copy / "lib" / "data").read_text() == "data"
    assert (root.copy / "handler.py").stat().st_uid == IDS.host_id(1000)
    assert root.copy.stat().st_gid == IDS.host_id(1000)
    # An overlay shows the own number of a written file only when it had several names.
    assert {p.stat().st_nlink for p in root.copy.rglob("*") if p.is_file()} == {2}
    (app / "handler.py").write_text("v2")
    assert roots.ensure(workload, IDS) == root
    assert (root.copy / "handler.py").read_text() == "v1"


@pytest.mark.root
def test_a_handler_alone_brings_only_itself(
    app: Path, tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """Without a root the copy is one file, without set-id bits."""
    (app / "handler.py").chmod(0o4755)
    root = Roots(tmp_path / "roots").ensure(
        make_workload(handler_path=str(app / "handler.py")), IDS
    )
    assert not root.is_folder
    assert root.copy.read_text() == "v1"
    assert root.copy.stat().st_mode & 0o7777 == 0o755
    assert [entry.name for entry in root.copy.parent.iterdir()] == ["handler.py"]


def test_a_folder_above_the_limit_is_refused(
    app: Path, tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """The error has the size and the limit, and nothing is left behind."""
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app))
    with pytest.raises(FailedPrecondition) as caught:
        Roots(tmp_path / "roots", max_bytes=3).ensure(workload, IDS)
    assert caught.value.reason == "ROOT_TOO_LARGE"
    assert caught.value.metadata["sizeBytes"] == "6"
    assert not (tmp_path / "roots").exists()


def test_a_root_that_does_not_hold_the_handler_is_refused(
    app: Path, tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """The handler must be in the sandbox."""
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app / "lib"))
    with pytest.raises(InvalidArgument):
        Roots(tmp_path / "roots").ensure(workload, IDS)


@pytest.mark.root
def test_removal(app: Path, tmp_path: Path, make_workload: MakeWorkload) -> None:
    """The last revision takes the function's folder with it."""
    roots = Roots(tmp_path / "roots")
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app))
    roots.ensure(workload, IDS)
    roots.remove("hello", 2)
    assert roots.find(workload).copy.exists()
    roots.remove("hello", 1)
    assert not (tmp_path / "roots" / "hello").exists()


def test_unfinished_copies_are_removed(tmp_path: Path) -> None:
    """A copy that was cut off never looks complete."""
    leftover = tmp_path / "hello" / "1" / ".new"
    leftover.mkdir(parents=True)
    Roots(tmp_path).clean()
    assert not leftover.exists()


@pytest.mark.root
def test_what_cant_be_copied_is_named(
    app: Path, tmp_path: Path, make_workload: MakeWorkload
) -> None:
    """A device file would be another one wherever the copy is; nothing is left of the copy."""
    os.mknod(app / "lib" / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app))
    with pytest.raises(FailedPrecondition) as refused:
        Roots(tmp_path / "roots").ensure(workload, IDS)
    assert refused.value.reason == "ROOT_NOT_COPYABLE"
    assert refused.value.metadata["path"].endswith("disk")
    assert [path for path in (tmp_path / "roots").rglob("*") if path.is_file()] == []


@pytest.mark.root
def test_a_full_file_system_is_told(app: Path, make_workload: MakeWorkload, small: Path) -> None:
    """Where there is no room, how much is free, and what was needed; nothing is left."""
    (app / "large").write_bytes(b"x" * (2 << 20))
    workload = make_workload(handler_path=str(app / "handler.py"), root_path=str(app))
    with pytest.raises(ResourceExhausted) as refused:
        Roots(small / "roots").ensure(workload, IDS)
    assert refused.value.reason == "STORAGE_FULL"
    assert refused.value.metadata["path"] == str(small / "roots")
    assert int(refused.value.metadata["neededBytes"]) > 2 << 20
    assert int(refused.value.metadata["freeBytes"]) <= 1 << 20
    assert [path for path in (small / "roots").rglob("*") if path.is_file()] == []
