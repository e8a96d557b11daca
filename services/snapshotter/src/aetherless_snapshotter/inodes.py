# SPDX-License-Identifier: Apache-2.0
"""The inode numbers that a program knows of its files.

Some programs note the number of a file that they opened, and trust the file no longer when its path
leads to another: SQLite then refuses to write (os_unix.c, fileHasMoved). So what a golden had open
for writing has the same number in each clone.
"""

from __future__ import annotations

import os
import stat
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors, files
from aetherless_snapshotter.findings import printable
from aetherless_snapshotter.sandbox_spec import MAX_HELD_FILES, HeldFile

if TYPE_CHECKING:
    from collections.abc import Iterable

    from aetherless_snapshotter.sandbox_spec import Tree

#: The init makes files up to the highest number whenever it makes the layers anew.
MAX_INODE = 16384


def held_files(function_id: str, tree: Tree, layer: int, names: Iterable[str]) -> list[HeldFile]:
    """Return those of ``names`` that lie in a tree's upper layer, by rising inode numbers.

    Args:
        function_id: whose tree it is.
        tree: the tree.
        layer: a descriptor of its upper layer.
        names: absolute paths in the sandbox.

    Raises:
        FailedPrecondition: NOT_CHECKPOINTABLE, there are too many.
    """
    found: dict[int, HeldFile] = {}
    for name in sorted(names):
        path = PurePosixPath(name)
        if not path.is_relative_to(tree.target):
            continue
        below = path.relative_to(tree.target)
        inode = _inode(layer, below)
        if inode is not None:
            _require_text(function_id, name)
            found.setdefault(inode, HeldFile(tree.tag, str(below), inode))
    highest = max(found, default=0)
    if highest > MAX_INODE:
        cause = (
            f"it holds {found[highest].path} open for writing, the {highest}th file it made; "
            f"only the first {MAX_INODE} can be kept under their numbers"
        )
        raise errors.not_checkpointable(function_id, cause, "make fewer files before it")
    if len(found) > MAX_HELD_FILES:
        cause = (
            f"it holds {len(found)} files open for writing, at most {MAX_HELD_FILES} can be kept"
        )
        raise errors.not_checkpointable(function_id, cause, "open fewer before the first request")
    return [found[inode] for inode in sorted(found)]


def _require_text(function_id: str, name: str) -> None:
    """Refuse a name that a sandbox can't be told.

    Raises:
        FailedPrecondition: NOT_CHECKPOINTABLE.
    """
    shown = printable(name)
    if shown != name:
        cause = f"it holds {shown} open for writing, whose name is no UTF-8"
        raise errors.not_checkpointable(function_id, cause, "name it in UTF-8")


def _inode(layer: int, path: PurePosixPath) -> int | None:
    """Return a regular file's inode number in the layer itself; None when there is none."""
    try:
        with files.opened_beneath(layer, *path.parent.parts) as folder:
            status = os.stat(path.name, dir_fd=folder, follow_symlinks=False)
    except (FileNotFoundError, NotADirectoryError):
        return None
    return status.st_ino if stat.S_ISREG(status.st_mode) else None
