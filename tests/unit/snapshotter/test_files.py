# SPDX-License-Identifier: Apache-2.0
"""Copies of trees that somebody else has filled."""

from __future__ import annotations

import os
import stat
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import files

if TYPE_CHECKING:
    from pathlib import Path


def copy(source: Path, target: Path) -> int:
    """Copy ``source`` to the new folder ``target``, keeping owners."""
    target.mkdir()
    flags = os.O_RDONLY | os.O_DIRECTORY
    reader, writer = os.open(source, flags), os.open(target, flags)
    try:
        return files.copy_tree(reader, writer, lambda status: (status.st_uid, status.st_gid))
    finally:
        os.close(reader)
        os.close(writer)


def test_copies_content_modes_and_times(tmp_path: Path) -> None:
    """A file and a folder come out as they were."""
    source = tmp_path / "source"
    (source / "inner").mkdir(parents=True)
    file = source / "inner" / "data"
    file.write_bytes(b"x" * 100_000)
    file.chmod(0o640)
    os.utime(file, ns=(1_000_000_007, 2_000_000_011))
    assert copy(source, tmp_path / "target") == 100_000
    copied = tmp_path / "target" / "inner" / "data"
    assert copied.read_bytes() == b"x" * 100_000
    assert stat.S_IMODE(copied.stat().st_mode) == 0o640
    assert copied.stat().st_mtime_ns == 2_000_000_011


def test_follows_no_link(tmp_path: Path) -> None:
    """A link to a secret is copied as a link, whether it names a file or a folder."""
    secret = tmp_path / "secret"
    secret.mkdir()
    (secret / "key").write_text("hidden")
    source = tmp_path / "source"
    source.mkdir()
    (source / "file").symlink_to(secret / "key")
    (source / "folder").symlink_to(secret)
    assert copy(source, tmp_path / "target") == 0
    assert (tmp_path / "target" / "file").readlink() == secret / "key"
    assert (tmp_path / "target" / "folder").is_symlink()


def test_keeps_user_attributes_and_fifos(tmp_path: Path) -> None:
    """The attributes that an unprivileged overlay needs come along, and so does a fifo."""
    source = tmp_path / "source"
    (source / "opaque").mkdir(parents=True)
    os.setxattr(source / "opaque", "user.overlay.opaque", b"y")
    os.mkfifo(source / "fifo")
    copy(source, tmp_path / "target")
    assert os.getxattr(tmp_path / "target" / "opaque", "user.overlay.opaque") == b"y"
    assert stat.S_ISFIFO((tmp_path / "target" / "fifo").stat().st_mode)


@pytest.mark.root
def test_keeps_whiteouts_and_refuses_devices(tmp_path: Path) -> None:
    """An overlay's whiteout (device 0:0) is copied; a real device is not."""
    source = tmp_path / "source"
    source.mkdir()
    os.mknod(source / "gone", stat.S_IFCHR, os.makedev(0, 0))
    copy(source, tmp_path / "target")
    copied = (tmp_path / "target" / "gone").stat()
    assert stat.S_ISCHR(copied.st_mode)
    assert copied.st_rdev == 0
    os.mknod(source / "null", stat.S_IFCHR, os.makedev(1, 3))
    with pytest.raises(OSError, match="device file"):
        copy(source, tmp_path / "second")


def test_keeps_holes(tmp_path: Path) -> None:
    """A sparse file stays sparse and its data stay in their places."""
    source = tmp_path / "source"
    source.mkdir()
    with (source / "sparse").open("wb") as file:
        file.seek(50 << 20)
        file.write(b"end")
    copy(source, tmp_path / "target")
    copied = tmp_path / "target" / "sparse"
    assert copied.stat().st_size == (50 << 20) + 3
    assert copied.stat().st_blocks * 512 < 1 << 20
    with copied.open("rb") as file:
        file.seek(50 << 20)
        assert file.read() == b"end"


def test_sizes_a_tree(tmp_path: Path) -> None:
    """Only regular files count, links do not."""
    (tmp_path / "a").write_bytes(b"12345")
    (tmp_path / "link").symlink_to("/etc/passwd")
    assert files.tree_size(tmp_path) == 5


def test_removing_what_is_not_there_is_fine(tmp_path: Path) -> None:
    """Removal is idempotent."""
    (tmp_path / "tree" / "inner").mkdir(parents=True)
    files.remove_tree(tmp_path / "tree")
    files.remove_tree(tmp_path / "tree")
    assert not (tmp_path / "tree").exists()
