# SPDX-License-Identifier: Apache-2.0
"""Small operations on files that several modules need: atomic writes, hashes, safe copies."""

from __future__ import annotations

import errno
import fcntl
import hashlib
import os
import shutil
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_FICLONE = 0x40049409
_CHUNK = 1 << 20


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_size(path: Path) -> int:
    """Return the bytes of all regular files below ``path``, links not followed."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 # a hot loop over a tree
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total


def remove_tree(path: Path) -> None:
    """Remove ``path`` and all below it; absent is fine, everything else is an error."""
    try:
        shutil.rmtree(path)
    except FileNotFoundError:
        return


def copy_file(source: Path, target: Path) -> None:
    """Copy a regular file's content to the new file ``target``, links in ``source`` followed."""
    reader = os.open(source, os.O_RDONLY | os.O_CLOEXEC)
    try:
        writer = os.open(target, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o600)
        try:
            _copy_content(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)


def copy_tree(source: int, target: int, owner: Callable[[os.stat_result], tuple[int, int]]) -> int:
    """Copy what the directory descriptor ``source`` holds into the one of ``target``.

    Regular files (reflinked where the file system can), folders, symbolic links, fifos, sockets,
    overlay whiteouts, ``user.*`` attributes, modes and times are kept; nothing is followed, and
    everything is opened relative to its parent, so whoever filled ``source`` can't lead the copy
    elsewhere. ``owner`` gives the new ids of an entry. Hard links become separate files.

    Returns the bytes copied.
    """
    copied = 0
    with os.scandir(source) as entries:
        for entry in entries:
            copied += _copy_entry(source, target, entry.name, owner)
    _copy_attributes(source, target)
    return copied


def _copy_entry(
    source: int, target: int, name: str, owner: Callable[[os.stat_result], tuple[int, int]]
) -> int:
    """Copy one entry of a directory; returns the bytes copied."""
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    copied = 0
    if stat.S_ISDIR(status.st_mode):
        copied = _copy_folder(source, target, name, owner)
    elif stat.S_ISREG(status.st_mode):
        copied = _copy_file(source, target, name)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISCHR(status.st_mode) and status.st_rdev != 0:
        raise OSError(errno.EINVAL, "a device file can't be copied", name)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    _copy_status(status, target, name, owner(status))
    return copied


def _copy_folder(
    source: int, target: int, name: str, owner: Callable[[os.stat_result], tuple[int, int]]
) -> int:
    """Copy one folder and what it holds."""
    os.mkdir(name, 0o700, dir_fd=target)
    flags = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
    inner_source = os.open(name, flags, dir_fd=source)
    try:
        inner_target = os.open(name, flags, dir_fd=target)
        try:
            return copy_tree(inner_source, inner_target, owner)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)


def _copy_file(source: int, target: int, name: str) -> int:
    """Copy one regular file's content and attributes."""
    reader = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=source)
    try:
        flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        writer = os.open(name, flags, 0o600, dir_fd=target)
        try:
            size = _copy_content(reader, writer)
            _copy_attributes(reader, writer)
        finally:
            os.close(writer)
    finally:
        os.close(reader)
    return size


def _copy_content(reader: int, writer: int) -> int:
    """Share the content by a reflink, or copy it where the file systems can't."""
    size = os.fstat(reader).st_size
    try:
        fcntl.ioctl(writer, _FICLONE, reader)
    except OSError as error:
        if error.errno not in (errno.EOPNOTSUPP, errno.EXDEV, errno.EINVAL, errno.ENOTTY):
            raise
        _copy_segments(reader, writer, size)
    return size


def _copy_segments(reader: int, writer: int, size: int) -> None:
    """Copy the parts of a file that hold data, so that a sparse file stays sparse."""
    os.ftruncate(writer, size)
    position = 0
    while position < size:
        try:
            position = os.lseek(reader, position, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(reader, position, os.SEEK_HOLE)
        os.lseek(writer, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(writer, reader, position, min(_CHUNK, end - position))
            if sent == 0:  # the file became shorter meanwhile
                return
            position += sent


def _copy_attributes(source: int, target: int) -> None:
    """Copy the ``user.*`` attributes, in which an unprivileged overlay keeps its own."""
    for name in os.listxattr(source):
        if name.startswith("user."):
            os.setxattr(target, name, os.getxattr(source, name))


def _copy_status(status: os.stat_result, target: int, name: str, owner: tuple[int, int]) -> None:
    """Give a copy its owner, mode and times; a change of owner clears set-id bits, so mode last."""
    os.chown(name, *owner, dir_fd=target, follow_symlinks=False)
    if not stat.S_ISLNK(status.st_mode):
        os.chmod(name, stat.S_IMODE(status.st_mode), dir_fd=target)
    times = (status.st_atime_ns, status.st_mtime_ns)
    os.utime(name, ns=times, dir_fd=target, follow_symlinks=False)
