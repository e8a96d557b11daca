# SPDX-License-Identifier: Apache-2.0
"""Tells whether a function's files changed, without reading them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_cli import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT = {"__pycache__", ".git"}


def digest_of(handler: Path, root: Path | None) -> str:
    """Return a hash over path, kind, mode, size and time of the handler and its folder's files.

    As ``make`` and ``rsync`` do it: a change that leaves size and time alone is not seen.

    Raises:
        FailedPrecondition: ROOT_UNREADABLE.
    """
    try:
        return _digest_of(handler, root)
    except OSError as error:
        raise errors.root_unreadable(error.filename or handler, str(error.strerror)) from error
    except RecursionError as error:
        raise errors.root_unreadable(str(root), "its folders are too deep") from error


def _digest_of(handler: Path, root: Path | None) -> str:
    seen = hashlib.sha256()
    for path in [handler] if root is None else sorted(_files(root)):
        facts = path.lstat()
        link = str(path.readlink()) if stat.S_ISLNK(facts.st_mode) else ""
        name = path.name if root is None else str(path.relative_to(root))
        fields = (name, facts.st_mode, facts.st_size, facts.st_mtime_ns, link)
        seen.update(repr(fields).encode())
    return seen.hexdigest()[:32]


def _files(folder: Path) -> Iterator[Path]:
    for top, folders, names in os.walk(folder):
        folders[:] = [name for name in folders if name not in LEFT_OUT]
        for name in names:
            yield Path(top) / name
