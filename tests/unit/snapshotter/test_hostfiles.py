# SPDX-License-Identifier: Apache-2.0
"""The host's files that snapshots rely on: which they are, and when they have changed."""

from __future__ import annotations

import os
import shutil
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest

from aetherless_snapshotter import hostfiles
from aetherless_snapshotter.hostfiles import HostFile

PROGRAM = Path("/usr/bin/true").resolve()


@pytest.fixture
def program(tmp_path: Path) -> Path:
    """Return a program with a build id."""
    return Path(shutil.copy(PROGRAM, tmp_path / "program"))


def test_the_build_id_is_that_of_binutils() -> None:
    """It is read as other tools read it; what is no program has none."""
    notes = subprocess.run(
        ["readelf", "--notes", PROGRAM], capture_output=True, check=True, text=True, timeout=30
    ).stdout
    found = hostfiles.build_id(PROGRAM)
    assert len(found) == 40
    assert f"Build ID: {found}" in notes
    assert hostfiles.build_id(Path(__file__)) == ""


@pytest.mark.parametrize("length", [0, 5, 40, 63, 70, 700])
def test_a_program_cut_short_has_no_build_id(program: Path, length: int) -> None:
    """Whatever lies in a file, it is read."""
    os.truncate(program, length)
    assert hostfiles.build_id(program) == ""


def test_the_same_program_anew_is_no_change(program: Path) -> None:
    """A package that is installed again brings new inodes and times, not other programs."""
    file = HostFile.of(program, program=True)
    program.rename(program.with_name("before"))
    shutil.copy(PROGRAM, program)
    assert program.stat().st_ino != file.inode
    assert isinstance(file.look(program), HostFile)


def test_a_touched_file_is_read_once(program: Path) -> None:
    """What fits is known by its new times; what does not fit stays known as it was."""
    files = {str(program): HostFile.of(program, program=True)}
    os.utime(program, ns=(0, 0))
    assert not list(hostfiles.changes(files))
    touched = files[str(program)]
    assert touched.mtime_ns == 0
    assert touched.look(program) is touched
    os.truncate(program, 700)
    assert list(hostfiles.changes(files))
    assert files[str(program)] is touched


def test_another_program_of_the_same_size_is_a_change(program: Path) -> None:
    """It is told by the build id, whatever its times say."""
    file = replace(HostFile.of(program, program=True), build_id="00", inode=1)
    assert file.look(program) == ("build id 00", f"build id {hostfiles.build_id(program)}")


def test_a_program_without_a_build_id_is_told_by_its_time(tmp_path: Path) -> None:
    """An archive that is mapped privately; what is only opened, or shared, is told by its size."""
    path = tmp_path / "archive"
    path.write_bytes(b"one")
    mapped = HostFile.of(path, program=True)
    opened = HostFile.of(path, program=False)
    os.utime(path, ns=(0, mapped.mtime_ns))
    assert isinstance(mapped.look(path), HostFile)  # only its inode changed
    path.write_bytes(b"two")
    os.utime(path, ns=(0, mapped.mtime_ns + 10**9))
    assert not isinstance(mapped.look(path), HostFile)
    assert isinstance(opened.look(path), HostFile)
    path.write_bytes(b"three")
    assert opened.look(path) == ("3 bytes", "5 bytes")


def test_a_file_that_is_gone_is_a_change(program: Path) -> None:
    """The finding is the kernel's word for it."""
    file = HostFile.of(program, program=True)
    program.unlink()
    assert list(hostfiles.changes({str(program): file})) == [
        (str(program), "a file", "No such file or directory")
    ]


def test_only_the_hosts_own_files_are_recorded(tmp_path: Path, program: Path) -> None:
    """A file counts when it is the same one in the sandbox and on the host."""
    inside = tmp_path / "inside"
    for name, source in (("same", program), ("copy", program)):
        (tmp_path / name).write_bytes(source.read_bytes())
        (inside / str(tmp_path).removeprefix("/")).mkdir(parents=True, exist_ok=True)
    seen = inside / str(tmp_path).removeprefix("/")
    os.link(tmp_path / "same", seen / "same")
    shutil.copy(tmp_path / "copy", seen / "copy")
    (seen / "own").write_bytes(b"")
    names = {str(tmp_path / name): True for name in ("same", "copy", "own", "gone")}
    names[str(tmp_path)] = True  # a folder
    assert list(hostfiles.record(names, inside)) == [str(tmp_path / "same")]
