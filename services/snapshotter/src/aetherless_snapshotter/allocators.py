# SPDX-License-Identifier: Apache-2.0
"""Programs that count on zeros where they gave memory back with madvise(MADV_DONTNEED).

The kernel promises zeros for anonymous memory only. Where a restore maps a snapshot's file, such
memory shows what the snapshot has there, and a block that was "cleared" that way is not clear.
Most allocators clear by themselves. jemalloc does not (``pages_purge_forced`` in its pages.c and
the ``zeroed`` state of its extents); linked statically or not, and with any prefix, it carries the
text with which its messages begin.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass, field
from functools import lru_cache
from typing import TYPE_CHECKING

from aetherless_snapshotter import processes

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_MARK = re.compile(rb"<jemalloc>")
_OVERLAP = len(b"<jemalloc>") - 1
_CHUNK = 1 << 20
#: A larger program is taken for one that counts on zeros: a sparse file would keep us for ever.
_MOST_BYTES = 1 << 30
#: So are the programs that are left once this much was read of one process's.
_MOST_BYTES_IN_ALL = 4 << 30
_MAPPING = re.compile(r"0*(?P<start>\w+)-0*(?P<end>\w+) ..x. \S+ (?P<file>\S+ [1-9]\d*) ")


@dataclass(frozen=True)
class _Program:
    """A mapped file, known by what it is and not by where it is mapped."""

    device: int
    inode: int
    size: int
    changed_ns: int
    path: Path = field(compare=False)


def counting_on_zeros(root: int) -> frozenset[int]:
    """Return which processes of the stopped tree of ``root`` count on zeros, as ids inside.

    Raises:
        OSError: a mapped program can't be read.
    """
    return frozenset(
        processes.inner_pid(pid) for pid in processes.tree(root) if _counts_on_zeros(pid)
    )


def _counts_on_zeros(pid: int) -> bool:
    """Tell whether a process has mapped a program with the mark, or more than is looked through."""
    left = _MOST_BYTES_IN_ALL
    for program in _programs(pid):
        left -= program.size
        if left < 0 or _is_marked(program):
            return True
    return False


def _programs(pid: int) -> Iterator[_Program]:
    """Yield the files that a process has mapped to run, opened as the kernel has them mapped."""
    seen = set()
    folder = processes.PROC / str(pid)
    for line in (folder / "maps").read_text(errors="replace").splitlines():
        match = _MAPPING.match(line)
        if match is None or match["file"] in seen:
            continue
        seen.add(match["file"])
        path = folder / "map_files" / f"{match['start']}-{match['end']}"
        status = path.stat()
        if not stat.S_ISREG(status.st_mode):  # a device, which has no end
            continue
        yield _Program(status.st_dev, status.st_ino, status.st_size, status.st_ctime_ns, path)


@lru_cache(maxsize=256)
def _is_marked(program: _Program) -> bool:
    """Tell whether a file carries the mark."""
    if program.size > _MOST_BYTES:
        return True
    descriptor = os.open(program.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        rest, left = b"", program.size  # it may grow meanwhile
        while left > 0 and (chunk := os.read(descriptor, min(_CHUNK, left))):
            if _MARK.search(rest + chunk):
                return True
            rest = chunk[-_OVERLAP:]
            left -= len(chunk)
    finally:
        os.close(descriptor)
    return False
