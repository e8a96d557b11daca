# SPDX-License-Identifier: Apache-2.0
"""Tells whether a function's files changed, without reading them."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

LEFT_OUT = {"__pycache__", ".git"}


def digest_of(handler: Path, root: Path | None) -> str:
    """Return a hash over path, kind, mode, size and time of the handler and its folder's files.

    As ``make`` and ``rsync`` do it: a change that leaves size and time alone is not seen.
    """
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
