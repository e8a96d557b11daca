# SPDX-License-Identifier: Apache-2.0
"""What copies of a function's folder share: what is unchanged for certain, and nothing else."""

from __future__ import annotations

import fcntl
import mmap
import os
import shutil
import time
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_snapshotter import second_names
from aetherless_snapshotter.idranges import IdRange
from aetherless_snapshotter.roots import Roots
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

pytestmark = pytest.mark.root

IDS = IdRange(0x70010000)


def settle(*paths: Path) -> None:
    """Return once the newest change of some files is old enough to be told from a later one."""
    newest = max(path.stat().st_ctime_ns for path in paths)
    wait_until(
        lambda: time.time_ns() - newest > 2 * second_names._SETTLED_NS,
        "the files are old enough",
    )


class App:
    """A function's folder on a file system of its own, and the copies of its revisions."""

    def __init__(self, folder: Path, roots: Path) -> None:
        self.folder = folder
        self.handler, self.data = folder / "handler.py", folder / "lib" / "data"
        self.data.parent.mkdir(parents=True)
        self.handler.write_text("v1")
        self.data.write_text("data")
        self.roots = Roots(roots)
        settle(self.handler, self.data)

    def copy(
        self,
        revision: int,
        capabilities: instance_pb2.CapabilitySet.ValueType = instance_pb2.CAPABILITY_SET_NONE,
    ) -> Path:
        """Return a revision's copy, made now."""
        workload = instance_pb2.Workload(
            function_id="hello",
            revision=revision,
            handler_path=str(self.handler),
            root_path=str(self.folder),
            capabilities=capabilities,
        )
        return self.roots.ensure(workload, IDS).copy

    def shared(self, name: str, *revisions: int) -> bool:
        """Tell whether a file is the same in all those revisions' copies."""
        copies = (self.copy(revision) for revision in revisions)
        return len({(copy / name).stat().st_ino for copy in copies}) == 1


@pytest.fixture
def app(small: Path, tmp_path: Path) -> App:
    """Return a folder on a tmpfs, whose copies are on another file system."""
    return App(small / "app", tmp_path / "roots")


def test_what_is_unchanged_is_one_file(app: App) -> None:
    """Each revision has all files; one that was made between two others is in all three."""
    first, second, third = (app.copy(revision) for revision in (1, 2, 3))
    assert app.shared("lib/data", 1, 2, 3)
    assert app.shared("handler.py", 1, 2, 3)
    assert first.stat().st_ino != second.stat().st_ino
    status = (third / "lib" / "data").stat()
    assert status.st_nlink == 6  # a name in each copy, and a second one of each
    assert status.st_uid == IDS.host_id(1000)
    assert (third / "lib" / "data").read_text() == "data"


def test_what_changed_in_place_is_copied(app: App) -> None:
    """Also with the same size and the same time of writing: its change time tells."""
    first, before = app.copy(1), app.data.stat()
    app.data.write_text("DATA")
    os.utime(app.data, ns=(before.st_atime_ns, before.st_mtime_ns))
    second = app.copy(2)
    assert (first / "lib" / "data").read_text() == "data"
    assert (second / "lib" / "data").read_text() == "DATA"
    assert app.shared("handler.py", 1, 2)
    app.data.write_text("data")
    assert (app.copy(3) / "lib" / "data").read_text() == "data"
    assert (second / "lib" / "data").read_text() == "DATA"


def test_what_was_replaced_is_copied(app: App) -> None:
    """By a rename, as editors and installers do it, with the old times kept."""
    first = app.copy(1)
    shutil.copy2(app.data, app.folder / "new")
    (app.folder / "new").write_text("DATA")
    shutil.copystat(app.data, app.folder / "new")
    (app.folder / "new").rename(app.data)
    assert (app.copy(2) / "lib" / "data").read_text() == "DATA"
    assert (first / "lib" / "data").read_text() == "data"


def test_a_mode_that_changed_is_the_later_revisions_alone(app: App) -> None:
    """The earlier copy keeps its own."""
    app.data.chmod(0o640)
    settle(app.data)
    first = app.copy(1)
    app.data.chmod(0o600)
    second = app.copy(2)
    modes = [(copy / "lib" / "data").stat().st_mode & 0o777 for copy in (first, second)]
    assert modes == [0o640, 0o600]


def test_a_file_that_is_mapped_for_writing_is_not_trusted(app: App) -> None:
    """Who writes to a page again moves no time: what was copied meanwhile is never shared."""
    with app.data.open("r+b") as file, mmap.mmap(file.fileno(), 4) as mapped:
        file.close()
        mapped[0:1] = b"D"
        settle(app.data)
        app.copy(1)
        before = app.data.stat()
        mapped[1:2] = b"A"
        after = app.data.stat()
        assert (before.st_mtime_ns, before.st_ctime_ns) == (after.st_mtime_ns, after.st_ctime_ns)
        assert (app.copy(2) / "lib" / "data").read_text() == "DAta"
    assert app.shared("handler.py", 1, 2)
    assert not app.shared("lib/data", 2, 3)
    assert app.shared("lib/data", 3, 4)  # by then nobody has it mapped


def test_a_file_that_changed_just_now_is_not_trusted(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It could change once more in the same tick of the kernel's clock."""
    monkeypatch.setattr(second_names, "_SETTLED_NS", 3600 * 10**9)
    assert not app.shared("lib/data", 1, 2)


def test_file_systems_of_others_are_not_trusted(app: App, monkeypatch: pytest.MonkeyPatch) -> None:
    """There a file can change without a time that this kernel sees."""
    monkeypatch.setattr(second_names, "_OWN_FILE_SYSTEMS", frozenset({"ext4"}))
    assert not app.shared("lib/data", 1, 2)


def test_copies_of_an_earlier_boot_are_not_trusted(
    app: App, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was not on the disk yet is lost when the host goes down."""
    app.copy(1)
    (tmp_path / "boot").write_text("another\n")
    monkeypatch.setattr(second_names, "_BOOT_ID", tmp_path / "boot")
    assert not app.shared("lib/data", 1, 2)
    assert app.shared("lib/data", 2, 3)


def test_another_owner_has_files_of_its_own(app: App) -> None:
    """A revision that runs as another user shares nothing."""
    first = app.copy(1)
    second = app.copy(2, capabilities=instance_pb2.CAPABILITY_SET_CONTAINER)
    assert (first / "lib" / "data").stat().st_uid == IDS.host_id(1000)
    assert (second / "lib" / "data").stat().st_uid == IDS.host_id(0)


def test_hard_links_become_separate_files(app: App) -> None:
    """In the first copy and in the following ones."""
    (app.folder / "again").hardlink_to(app.data)
    settle(app.data)
    for revision in (1, 2, 3):
        copy = app.copy(revision)
        assert not (copy / "again").samefile(copy / "lib" / "data")
        assert (copy / "again").read_text() == "data"
        assert min((copy / name).stat().st_nlink for name in ("again", "lib/data")) >= 2


def test_a_removed_revision_leaves_the_others_whole(app: App) -> None:
    """Files, modes and second names, from which the next one takes what is unchanged."""
    app.data.chmod(0o640)
    settle(app.data)
    app.copy(1)
    kept = app.copy(2)
    app.roots.remove("hello", 1)
    status = (kept / "lib" / "data").stat()
    assert (kept / "lib" / "data").read_text() == "data"
    assert (status.st_nlink, status.st_mode & 0o777) == (2, 0o640)
    assert app.shared("lib/data", 2, 3)


@pytest.mark.parametrize("gone", ["names", "root"])
def test_a_revision_that_is_being_removed_is_not_relied_on(app: App, gone: str) -> None:
    """What is gone of it is copied."""
    before = app.copy(1)
    shutil.rmtree(before.parent / gone)
    assert (app.copy(2) / "lib" / "data").read_text() == "data"


def test_copies_on_the_same_file_system(small: Path) -> None:
    """The folder and its copies may lie on one."""
    app = App(small / "app", small / "roots")
    assert app.shared("lib/data", 1, 2)
    assert not (app.copy(1) / "lib" / "data").samefile(app.data)


def test_a_cut_off_copy_is_made_anew(app: App) -> None:
    """Second names that were put in their place are no hindrance."""
    copy = app.copy(1)
    copy.rename(copy.parent / "gone")
    again = app.copy(1)
    assert (again / "lib" / "data").read_text() == "data"
    assert app.shared("lib/data", 1, 2)


def test_a_writer_that_comes_meanwhile_ends_nobody(
    app: App, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The kernel's word that somebody waits for the lease is ignored."""
    real: Callable[..., int] = fcntl.fcntl

    def granted(descriptor: int, command: int, *arguments: int) -> int:
        result = real(descriptor, command, *arguments)
        if command == fcntl.F_SETLEASE:
            with pytest.raises(BlockingIOError):
                os.open(app.data, os.O_WRONLY | os.O_NONBLOCK)
        return result

    monkeypatch.setattr(fcntl, "fcntl", granted)
    folder = os.open(app.data.parent, os.O_RDONLY)
    try:
        assert second_names._has_no_writer(folder, app.data.name)
    finally:
        os.close(folder)
    app.data.write_text("free again")
