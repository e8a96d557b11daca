# SPDX-License-Identifier: Apache-2.0
"""Small operations on files that several modules need: atomic writes, hashes, safe copies."""

from __future__ import annotations

import ctypes
import errno
import fcntl
import hashlib
import os
import shutil
import stat
import struct
import tempfile
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Owner = Callable[[os.stat_result], tuple[int, int]]
    MakeRegular = Callable[[int, int, str, os.stat_result], int]

_FICLONE = 0x40049409
_CHUNK = 1 << 20
#: How a folder is opened that its owner may have replaced by a link.
FOLDER_FLAGS = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
#: What is hashed at once.
_BLOCK = 1 << 16
_ZEROS = bytes(_BLOCK)
_KEEP_SIZE, _PUNCH_HOLE = 1, 2

_libc = ctypes.CDLL(None, use_errno=True)


def sha256(path: Path) -> str:
    """Return the file's SHA-256 as hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def content_sha256(path: Path) -> str:
    """Return a SHA-256 of what the file holds that costs nothing for its holes.

    It is taken over the size and each block of 64 KiB that is not all zeros, after its number: a
    hole and zeros that were written are the same.
    """
    digest = hashlib.sha256()
    with path.open("rb", buffering=0) as file:
        size = os.fstat(file.fileno()).st_size
        digest.update(struct.pack("<Q", size))
        for number in _data_blocks(file.fileno(), size):
            block = os.pread(file.fileno(), _BLOCK, number * _BLOCK)
            if block != _ZEROS[: len(block)]:
                digest.update(struct.pack("<Q", number))
                digest.update(block)
    return digest.hexdigest()


def _data_blocks(descriptor: int, size: int) -> Iterator[int]:
    """Yield the numbers of the blocks that are no holes."""
    following = 0
    for start, end in _segments(descriptor, size):
        numbers = range(max(following, start // _BLOCK), -(-end // _BLOCK))
        yield from numbers
        following = max(following, numbers.stop)


def disk_size(path: Path) -> int:
    """Return the bytes of a file that are no holes, as far as the file system tells them apart."""
    status = path.lstat()
    return min(status.st_size, status.st_blocks * 512)


def tree_size(path: Path) -> int:
    """Return the bytes of all regular files below ``path``, links not followed."""
    total = 0
    for folder, _, names in os.walk(path):
        for name in names:
            status = os.lstat(os.path.join(folder, name))  # noqa: PTH118 # a hot loop over a tree
            if stat.S_ISREG(status.st_mode):
                total += status.st_size
    return total


def free_bytes(path: Path) -> int:
    """Return how many bytes can be written to the file system of ``path``."""
    status = os.statvfs(path)
    return status.f_bavail * status.f_frsize


def is_full(error: OSError) -> bool:
    """Tell whether an error says that a file system, or a quota on it, is full."""
    return error.errno in (errno.ENOSPC, errno.EDQUOT)


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


def copy_range(source: int, target: int, start: int, to: int, length: int) -> None:
    """Copy ``length`` bytes at ``start`` of a descriptor to ``to`` of another, in the kernel.

    Raises:
        OSError: the file system is full, or the source ends too early (ENODATA).
    """
    while length:
        copied = os.copy_file_range(source, target, min(length, _CHUNK), start, to)
        if copied == 0:
            raise OSError(errno.ENODATA, os.strerror(errno.ENODATA))
        start, to, length = start + copied, to + copied, length - copied


def punch(descriptor: int, start: int, length: int) -> None:
    """Give the space of a part of a file back to the file system; it reads as zeros then."""
    mode = ctypes.c_int(_KEEP_SIZE | _PUNCH_HOLE)
    span = ctypes.c_int64(start), ctypes.c_int64(length)
    if _libc.fallocate64(ctypes.c_int(descriptor), mode, *span) != 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code))


def punches_holes(folder: Path) -> bool:
    """Tell whether the file system of a folder can give back parts of files.

    Raises:
        OSError: no file can be made there.
    """
    with tempfile.TemporaryFile(dir=folder) as file:
        try:
            punch(file.fileno(), 0, 1 << 12)
        except OSError as error:
            if error.errno not in (errno.EOPNOTSUPP, errno.ENOSYS, errno.ENODEV):
                raise
            return False
    return True


def copy_tree(
    source: int, target: int, owner: Owner, make_regular: MakeRegular | None = None
) -> int:
    """Copy what the directory descriptor ``source`` holds into the one of ``target``.

    Regular files (reflinked where the file system can), folders, symbolic links, fifos, sockets,
    overlay whiteouts, ``user.*`` attributes, modes and times are kept; nothing is followed, and
    everything is opened relative to its parent, so whoever filled ``source`` can't lead the copy
    elsewhere. ``owner`` gives the new ids of an entry. Hard links become separate files.
    ``make_regular`` makes each regular file in the place of ``copy_regular``; it is given the
    folders' descriptors, the name and the original's status, and returns the bytes.

    Returns the bytes copied.
    """
    copied = 0
    with os.scandir(source) as entries:
        for entry in entries:
            copied += _copy_entry(source, target, entry.name, owner, make_regular)
    _copy_attributes(source, target)
    return copied


def copy_layer(source: int, target: Path) -> int:
    """Copy the upper layer that the descriptor ``source`` is of, with its top's owner and mode.

    Returns the bytes copied.
    """
    target.mkdir(mode=0o700)
    writer = os.open(target, FOLDER_FLAGS)
    try:
        copied = copy_tree(source, writer, _same_owner)
        status = os.fstat(source)
        os.fchown(writer, status.st_uid, status.st_gid)
        os.fchmod(writer, status.st_mode & 0o7777)
    finally:
        os.close(writer)
    return copied


def _same_owner(status: os.stat_result) -> tuple[int, int]:
    """Keep the ids of an entry."""
    return status.st_uid, status.st_gid


@contextmanager
def opened_beneath(folder: Path | int, *names: str) -> Iterator[int]:
    """Give a descriptor of the folder that ``names`` lead to, one below the other.

    No symbolic link is followed after ``folder`` (a path, or a descriptor), so whoever can write
    there leads nowhere else.
    """
    start = f"/proc/self/fd/{folder}" if isinstance(folder, int) else folder
    descriptor = os.open(start, os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        for name in names:
            above, descriptor = descriptor, os.open(name, FOLDER_FLAGS, dir_fd=descriptor)
            os.close(above)
        yield descriptor
    finally:
        os.close(descriptor)


def _copy_entry(
    source: int, target: int, name: str, owner: Owner, make_regular: MakeRegular | None
) -> int:
    """Copy one entry of a directory; returns the bytes copied."""
    status = os.stat(name, dir_fd=source, follow_symlinks=False)
    if stat.S_ISREG(status.st_mode):
        if make_regular is not None:
            return make_regular(source, target, name, status)
        return copy_regular(source, target, name, status, owner(status))
    copied = 0
    if stat.S_ISDIR(status.st_mode):
        copied = _copy_folder(source, target, name, owner, make_regular)
    elif stat.S_ISLNK(status.st_mode):
        os.symlink(os.readlink(name, dir_fd=source), name, dir_fd=target)
    elif stat.S_ISBLK(status.st_mode) or (stat.S_ISCHR(status.st_mode) and status.st_rdev != 0):
        raise OSError(errno.EINVAL, "a device file can't be copied", name)
    else:
        os.mknod(name, status.st_mode, status.st_rdev, dir_fd=target)
    _copy_status(status, target, name, owner(status))
    return copied


def _copy_folder(
    source: int, target: int, name: str, owner: Owner, make_regular: MakeRegular | None
) -> int:
    """Copy one folder and what it holds."""
    os.mkdir(name, 0o700, dir_fd=target)
    inner_source = os.open(name, FOLDER_FLAGS, dir_fd=source)
    try:
        inner_target = os.open(name, FOLDER_FLAGS, dir_fd=target)
        try:
            return copy_tree(inner_source, inner_target, owner, make_regular)
        finally:
            os.close(inner_target)
    finally:
        os.close(inner_source)


def copy_regular(
    source: int, target: int, name: str, status: os.stat_result, owner: tuple[int, int]
) -> int:
    """Copy one regular file from one folder's descriptor to another's, as ``copy_tree`` does.

    Returns the bytes copied.
    """
    size = _copy_file(source, target, name)
    _copy_status(status, target, name, owner)
    return size


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
    for start, end in _segments(reader, size):
        position = start
        os.lseek(writer, position, os.SEEK_SET)
        while position < end:
            sent = os.sendfile(writer, reader, position, min(_CHUNK, end - position))
            if sent == 0:  # the file became shorter meanwhile
                return
            position += sent


def _segments(descriptor: int, size: int) -> Iterator[tuple[int, int]]:
    """Yield the parts of a file that hold data, as start and end."""
    end = 0
    while end < size:
        try:
            start = os.lseek(descriptor, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno == errno.ENXIO:  # only a hole is left
                return
            raise
        end = os.lseek(descriptor, start, os.SEEK_HOLE)
        yield start, end


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
