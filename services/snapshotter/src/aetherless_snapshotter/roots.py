# SPDX-License-Identifier: Apache-2.0
"""A revision's own copy of its function's folder.

Editing the files in place must not disturb a snapshot, and a rollback must find the old files, so
each revision has a copy (reflinked where the file system can). It belongs to the handler's user.
What did not change since the copy before is not copied again, but one file in both: see
``second_names``.
"""

from __future__ import annotations

import os
import stat
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors, files
from aetherless_snapshotter.second_names import SecondNames
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
            if root.is_folder:
                self._copy_folder(root, staging, owner)
            else:
                _copy_single(root.path, staging, root.copy.name, (owner, owner))
            (staging / root.copy.name).rename(root.copy)
        except OSError as error:
            if files.is_full(error):
                free = files.free_bytes(self._folder)
                raise errors.storage_full(self._folder, needed, free) from error
            raise _not_copyable(source, error) from error
        finally:
            files.remove_tree(staging)

    def _copy_folder(self, root: Root, staging: Path, owner: int) -> None:
        """Copy a folder into ``staging``, and put the second names in their place."""
        names = root.copy.parent / _SECOND_NAMES
        with SecondNames(staging / names.name, self._names_before(root), owner) as second:
            _copy_folder(root.path, staging / root.copy.name, owner, second)
        files.remove_tree(names)  # of a copy that was cut off right here
        (staging / names.name).rename(names)

    def _names_before(self, root: Root) -> Path | None:
        """Return the second names of the newest finished copy of the same function's folder."""
        others = (each for each in root.copy.parent.parent.iterdir() if each.name.isdecimal())
        finished = [each for each in others if (each / root.copy.name).is_dir()]
        newest = max(finished, key=lambda each: int(each.name), default=None)
        return newest / _SECOND_NAMES if newest else None

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


def _copy_folder(path: Path, target: Path, owner: int, names: SecondNames) -> None:
    """Copy the folder ``path`` to the new folder ``target``."""

    def own(_: os.stat_result) -> tuple[int, int]:
        return owner, owner

    target.mkdir(mode=0o700)
    source = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        descriptor = os.open(target, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            files.copy_tree(source, descriptor, own, names.make)
            os.fchmod(descriptor, stat.S_IMODE(os.fstat(source).st_mode) & 0o777)
            os.fchown(descriptor, owner, owner)
        finally:
            os.close(descriptor)
    finally:
        os.close(source)


def _copy_single(source: Path, folder: Path, name: str, owner: tuple[int, int]) -> None:
    """Copy one file, its mode without set-id bits."""
    target = folder / name
    files.copy_file(source, target)
    os.chown(target, *owner)
    target.chmod(stat.S_IMODE(source.stat().st_mode) & 0o777)
