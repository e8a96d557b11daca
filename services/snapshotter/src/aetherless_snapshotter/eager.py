# SPDX-License-Identifier: Apache-2.0
"""The pages that a first request writes: found in a restored tree, and copied by the restore.

A converted snapshot (``cow``) shares all it can, and each page costs a fault when it is written.
Where that is slower than a copy, a second set of images has those pages in its page maps: the
restore writes them into their areas. Only page maps and pages are files of their own, the rest of
the second set are links to the first, and both share ``mem.bin``.
"""

from __future__ import annotations

import contextlib
import heapq
import os
import struct
from typing import TYPE_CHECKING

from aetherless_snapshotter import cow, cow_plan, files, images, processes
from aetherless_snapshotter.cow_plan import Interval, Piece, overlaps
from aetherless_snapshotter.pagemap import PAGE, PRESENT, PageMap, PageWriter, Run
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence
    from pathlib import Path

#: The folder of the second set, within that of the first.
FOLDER = "eager"
#: The same as the sandbox sees it.
TARGET = f"{SNAPSHOT_TARGET}/{FOLDER}"
# Bits of an entry of pagemap (admin-guide/mm/pagemap of the kernel's documentation).
_PRESENT, _SWAPPED, _FILE = 1 << 63, 1 << 62, 1 << 61
_ENTRY = 8
_ENTRIES_AT_ONCE = 1 << 14


def written(root: int) -> dict[int, list[Interval]]:
    """Return what the tree of ``root`` has written of a snapshot's shared pages since its restore.

    Args:
        root: the root process's id on the host.

    Returns:
        by process (ids inside), sorted intervals of addresses. A process that is gone has none.
    """
    found = {}
    for pid in processes.tree(root):
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found[processes.inner_pid(pid)] = list(_written(pid))
    return found


def _written(pid: int) -> Iterator[Interval]:
    """Yield the private pages in a process's mappings of the snapshot."""
    folder = processes.PROC / str(pid)
    with (folder / "pagemap").open("rb", buffering=0) as pagemap:
        for line in (folder / "maps").read_text(errors="replace").splitlines():
            if not line.endswith(f" {cow.MEMORY_TARGET}"):
                continue
            start, end = (int(word, 16) for word in line.split()[0].split("-"))
            yield from _joined(_private(pagemap.fileno(), start, end))


def _private(pagemap: int, start: int, end: int) -> Iterator[int]:
    """Yield the addresses of an area's pages that are no file's."""
    step = _ENTRIES_AT_ONCE * PAGE
    for position in range(start, end, step):
        length = (min(position + step, end) - position) // PAGE * _ENTRY
        raw = os.pread(pagemap, length, position // PAGE * _ENTRY)
        for number, (entry,) in enumerate(struct.iter_unpack("=Q", raw)):
            if entry & (_PRESENT | _SWAPPED) and not entry & _FILE:
                yield position + number * PAGE


def _joined(pages: Iterator[int]) -> Iterator[Interval]:
    """Join neighbouring pages."""
    last: Interval | None = None
    for page in pages:
        if last and last.end == page:
            last = Interval(last.start, page + PAGE)
            continue
        if last:
            yield last
        last = Interval(page, page + PAGE)
    if last:
        yield last


def keep(folder: Path, pages: Mapping[int, Sequence[Interval]]) -> int:
    """Make the second set of the converted images in ``folder``, with these pages copied.

    Args:
        folder: the images; the second set comes to ``folder``/eager.
        pages: by process, sorted intervals of addresses; what is not shared is left out.

    Returns:
        the bytes that a restore copies more.

    Raises:
        OSError: the file system is full.
    """
    target = folder / FOLDER
    target.mkdir(mode=0o700)
    copied = 0
    with _open(folder / cow.MEMORY) as memory:
        for pid in pages:
            pieces = _pieces(folder, pid)
            runs = [
                Run(span, piece.offset + span.start - piece.start, PRESENT)
                for piece, span in overlaps(pieces, pages[pid])
            ]
            if runs:
                copied += _write(PageMap.of(folder, pid), target, runs, memory)
    _link_rest(folder, target)
    return copied


def discard(folder: Path) -> None:
    """Remove the second set of images in ``folder``, if there is one."""
    files.remove_tree(folder / FOLDER)


def _pieces(folder: Path, pid: int) -> list[Piece]:
    """Return the parts of a process's memory that are mappings of the shared file."""
    path = folder / f"mm-{pid}.img"
    if not path.exists():  # made since the restore
        return []
    known = images.Image.read(folder / "files.img").decode(images.module("fdinfo").file_entry)
    numbers = {entry.id for entry in known if entry.reg.name == cow.MEMORY_TARGET}
    (memory_map,) = images.Image.read(path).decode(images.module("mm").mm_entry)
    return [
        Piece(vma.start, vma.end, vma.pgoff)
        for vma in memory_map.vmas
        if vma.status & cow_plan.FILE_PRIVATE and vma.shmid in numbers
    ]


def _write(old: PageMap, target: Path, runs: Sequence[Run], memory: int) -> int:
    """Write the page map and pages of one process with further pages, from the shared file."""
    with _open(old.pages) as pages, PageWriter(old.within(target), old) as new:
        theirs = ((run, pages) for run in old.runs())
        for run, source in heapq.merge(theirs, ((run, memory) for run in runs)):
            new.add(run, source)
        return sum(run.length for run in runs)


def _link_rest(folder: Path, target: Path) -> None:
    """Complete the second set; close it to writers."""
    for path in target.iterdir():
        path.chmod(0o444)
    for path in folder.iterdir():
        if path.is_file() and path.name != cow.MEMORY and not (target / path.name).exists():
            (target / path.name).symlink_to(f"../{path.name}")
    target.chmod(0o555)


@contextlib.contextmanager
def _open(path: Path) -> Iterator[int]:
    """Give a descriptor for reading."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        yield descriptor
    finally:
        os.close(descriptor)
