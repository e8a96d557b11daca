# SPDX-License-Identifier: Apache-2.0
"""A revision's own copy of its function's folder.

Editing the files in place must not disturb a snapshot, and a rollback must find the old files, so
each revision has a copy (reflinked where the file system can). It belongs to the handler's user.
"""

from __future__ import annotations

import itertools
import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors, files
from aetherless_snapshotter.workload import user_of

if TYPE_CHECKING:
    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_common.errors import FailedPrecondition
    from aetherless_snapshotter.idranges import IdRange

#: The most that a function's folder may hold, in bytes.
MAX_ROOT_BYTES = 2 << 30
_SECOND_NAMES = "names"


@dataclass(frozen=True)
class Root:
    """A revision's copy: ``copy`` on the host, ``path`` in the sandbox (both folder or file)."""

    copy: Path
    path: Path
    is_folder: bool


class Roots:
    """The copies of all functions' folders: ``<folder>/<function>/<revision>/``."""

    def __init__(self, folder: Path, max_bytes: int = MAX_ROOT_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def ensure(self, workload: instance_pb2.Workload, ids: IdRange) -> Root:
        """Return the revision's copy, making it at the first call.

        Raises:
            InvalidArgument: the root is no folder, or does not hold the handler.
            FailedPrecondition: ROOT_TOO_LARGE or ROOT_NOT_COPYABLE.
            ResourceExhausted: STORAGE_FULL.
        """
        root = self.find(workload)
        if not root.copy.exists():
            self._make(root, ids.host_id(user_of(workload)))
        return root

    def find(self, workload: instance_pb2.Workload) -> Root:
        """Return where the revision's copy is, whether or not it was made yet."""
        revision = self._folder / workload.function_id / str(workload.revision)
        handler = Path(workload.handler_path)
        if not workload.root_path:
            return Root(revision / handler.name, handler, is_folder=False)
        path = Path(os.path.normpath(workload.root_path))
        if path not in handler.parents:
            raise errors.invalid_argument("workload.root_path", "does not hold the handler")
        return Root(revision / "root", path, is_folder=True)

    def all(self) -> list[tuple[str, int]]:
        """Return the function and the revision of each copy, unfinished ones too."""
        found = self._folder.glob("*/*")
        return [(one.parent.name, int(one.name)) for one in found if one.name.isdecimal()]

    def remove(self, function_id: str, revision: int) -> None:
        """Remove one revision's copy, and the function's folder with the last one."""
        folder = self._folder / function_id
        files.remove_tree(folder / str(revision))
        if folder.is_dir() and not any(folder.iterdir()):
            folder.rmdir()

    def clean(self) -> None:
        """Remove copies that were never finished; for the start of the service."""
        for leftover in self._folder.glob("*/*/.new"):
            files.remove_tree(leftover)

    def _make(self, root: Root, owner: int) -> None:
        """Copy the folder beside its final place and rename it; the copy is ``owner``'s."""
        source = root.path
        if root.is_folder and not source.is_dir():
            raise errors.invalid_argument("workload.root_path", f"{source} is not a folder")
        try:
            needed = self._check_size(source)
        except OSError as error:
            raise _not_copyable(source, error) from error
        except RecursionError as error:
            raise errors.root_not_copyable(str(source), "its folders are too deep") from error
        staging = root.copy.parent / ".new"
        files.remove_tree(staging)
        staging.mkdir(mode=0o700, parents=True)
        try:
            _copy_root(root, staging, owner)
            if root.is_folder:
                _name_again(staging / root.copy.name, root.copy.parent / _SECOND_NAMES)
            (staging / root.copy.name).rename(root.copy)
        except OSError as error:
            if files.is_full(error):
                free = files.free_bytes(self._folder)
                raise errors.storage_full(self._folder, needed, free) from error
            raise _not_copyable(source, error) from error
        finally:
            files.remove_tree(staging)

    def _check_size(self, source: Path) -> int:
        """Refuse what is too large to be copied; returns its bytes."""
        size = files.tree_size(source) if source.is_dir() else source.stat().st_size
        if size > self._max_bytes:
            raise errors.root_too_large(str(source), size, self._max_bytes)
        return size


def _not_copyable(source: Path, error: OSError) -> FailedPrecondition:
    """Return the error for what the kernel refuses while a folder is copied."""
    place = source / os.fsdecode(error.filename) if error.filename else source
    return errors.root_not_copyable(str(place), error.strerror or str(error))


def _copy_root(root: Root, staging: Path, owner: int) -> None:
    """Copy ``root.path`` (a folder, or one file) into ``staging`` under its copy's name."""
    target = staging / root.copy.name

    def own(_: os.stat_result) -> tuple[int, int]:
        return owner, owner

    if not root.is_folder:
        _copy_single(root.path, staging, root.copy.name, own(root.path.stat()))
        return
    target.mkdir(mode=0o700)
    source = os.open(root.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files.copy_tree(source, descriptor, own)
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(source).st_mode) & 0o777)
            os.fchown(descriptor, owner, owner)
        finally:
            os.close(descriptor)
    finally:
        os.close(source)


def _name_again(copy: Path, names: Path) -> None:
    """Give each regular file of a copy a second name.

    An overlay answers with the number of the lower inode also after a file was written, unless that
    has several names (fs/overlayfs/inode.c, ovl_hash_bylower). A written file's own number is one
    that can be had again in a clone: see ``inodes``.
    """
    files.remove_tree(names)
    names.mkdir(mode=0o700)
    numbers = itertools.count()
    for folder, _, found in os.walk(copy):
        for path in (Path(folder, name) for name in found):
            if stat.S_ISREG(path.lstat().st_mode):
                (names / str(next(numbers))).hardlink_to(path)


def _copy_single(source: Path, folder: Path, name: str, owner: tuple[int, int]) -> None:
    """Copy one file, its mode without set-id bits."""
    target = folder / name
    files.copy_file(source, target)
    os.chown(target, *owner)
    target.chmod(stat.S_IMODE(source.stat().st_mode) & 0o777)
