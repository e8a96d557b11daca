# SPDX-License-Identifier: Apache-2.0
"""Copy-on-write images: after a dump, its private memory becomes mappings of one shared file.

A dump as CRIU makes it holds each page, and each restore copies it. Here the pages of private
memory move to ``mem.bin`` beside the images, and the areas they belong to are rewritten as private
mappings of that file: a restore maps them, clones share them in the page cache, and the kernel
copies a page when it is written. Memory of the service does not grow with that of the program: all
is moved from file to file by the kernel.

The file is sparse. Each part has room behind it that is never written, because a mapping that
grows (mremap) goes on in the file: it must meet zeros there, not another part and not the end.
Each process maps the file under an entry of its own: CRIU takes areas of parent and child for one
inherited area when place and file are equal, whatever their offsets.
"""

from __future__ import annotations

import errno
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aetherless_snapshotter import cow_plan, files, images
from aetherless_snapshotter.cow_plan import Interval, Piece, Thresholds
from aetherless_snapshotter.pagemap import PAGE, PageMap, PageWriter
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator, Sequence
    from pathlib import Path
    from typing import Self

    from aetherless_snapshotter.pagemap import Run

#: The file of shared pages, beside the images.
MEMORY = "mem.bin"
#: The same as the sandbox sees it.
MEMORY_TARGET = f"{SNAPSHOT_TARGET}/{MEMORY}"
_THRESHOLDS = Thresholds(min_bytes=8 * PAGE, max_gap=16 * PAGE)
#: Far below vm.max_map_count (65530), which also bounds what was there before.
_MOST_PIECES = 8192
#: Room behind each part: above any memory limit, so that what grows into it can't be filled.
_ROOM = 1 << 36
#: The parts of a file system's largest file that one part's room may take.
_ROOM_SHARE = 1 << 16
#: How much is copied before its source is given back to the file system.
_GIVE_BACK = 16 << 20


@dataclass(frozen=True)
class Conversion:
    """What a conversion did.

    Attributes:
        shared_bytes: memory that clones share until they write it.
        eager_bytes: memory that each restore copies.
        parts: the mappings of the file.
    """

    shared_bytes: int
    eager_bytes: int
    parts: int


def convert(folder: Path, *, keep_anonymous: Collection[int] = ()) -> Conversion:
    """Convert the dump in ``folder``; what goes wrong leaves it useless.

    Args:
        folder: the images, on a file system with sparse files.
        keep_anonymous: processes whose anonymous memory stays as it is.

    Raises:
        ValueError: the images are not what CRIU writes.
        OSError: the file system is full, or can't hold sparse files of that size.
    """
    shared, parts = 0, 0
    with _MemoryFile.create(folder / MEMORY) as memory:
        for process in images.process_tree(folder):
            if not (folder / f"mm-{process.pid}.img").exists():  # ended, and not yet reaped
                continue
            image = _ProcessImage.read(folder, process.pid)
            pieces = image.plan(memory, anonymous=process.pid not in keep_anonymous)
            if pieces:
                shared += image.move(pieces, memory)
                image.map(pieces, memory)
            parts += len(pieces)
        memory.finish(folder)
    return Conversion(shared, images.resident_bytes(folder), parts)


class _MemoryFile:
    """The file that the parts move to, and the entries under which processes map it."""

    def __init__(self, path: Path, descriptor: int) -> None:
        self.path = path
        self.descriptor = descriptor
        self._room = min(_ROOM, _largest_file(descriptor) // _ROOM_SHARE)
        self._end = 0
        self._entries: list[tuple[int, int]] = []

    @classmethod
    def create(cls, path: Path) -> Self:
        """Make the file."""
        flags = os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC
        return cls(path, os.open(path, flags, 0o400))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        os.close(self.descriptor)

    def place(self, part: Interval) -> Piece:
        """Give a part its place, with room behind it."""
        piece = Piece(part.start, part.end, self._end)
        self._end += part.end - part.start + self._room
        return piece

    def entry(self, executable_id: int, folder: Path) -> int:
        """Return the id of a new entry of the file, on the mount of the process's executable."""
        if not self._entries:
            known = images.Image.read(folder / "files.img").decode(_files().file_entry)
            self._next = max(entry.id for entry in known) + 1
        self._entries.append((self._next, executable_id))
        self._next += 1
        return self._entries[-1][0]

    def finish(self, folder: Path) -> None:
        """Give the file its size and write its entries; one that nobody maps goes."""
        if not self._entries:
            self.path.unlink()
            return
        os.ftruncate(self.descriptor, self._end)
        path = folder / "files.img"
        image = images.Image.read(path)
        known = image.decode(_files().file_entry)
        mounts = {entry.id: entry.reg.mnt_id for entry in known if entry.HasField("reg")}
        known += [self._file(number, mounts[executable]) for number, executable in self._entries]
        image.encode(known)
        image.write(path)

    def _file(self, number: int, mount: int) -> Any:
        """Return one entry; a file of another size is refused by the restore."""
        owner = images.module("fown").fown_entry(uid=0, euid=0, signum=0, pid_type=0, pid=0)
        regular = images.module("regfile").reg_file_entry(
            id=number,
            flags=os.O_RDONLY,
            pos=0,
            fown=owner,
            name=MEMORY_TARGET,
            mnt_id=mount,
            size=self._end,
        )
        return _files().file_entry(type=_files().REG, id=number, reg=regular)


@dataclass
class _ProcessImage:
    """One process in the dump."""

    folder: Path
    path: Path
    header: images.Image
    memory_map: Any
    pages: PageMap

    @classmethod
    def read(cls, folder: Path, pid: int) -> _ProcessImage:
        """Read the process ``pid``."""
        path = folder / f"mm-{pid}.img"
        image = images.Image.read(path)
        (memory_map,) = image.decode(images.module("mm").mm_entry)
        return cls(folder, path, image, memory_map, PageMap.of(folder, pid))

    def plan(self, memory: _MemoryFile, *, anonymous: bool) -> list[Piece]:
        """Return the parts to move, each with its place in the file."""
        chosen = cow_plan.plan(
            self.memory_map.vmas, self.pages.spans, _THRESHOLDS, _MOST_PIECES, anonymous=anonymous
        )
        return [memory.place(part) for part in chosen]

    def move(self, pieces: Sequence[Piece], memory: _MemoryFile) -> int:
        """Move the pieces' pages to the file, the rest to new images; returns the bytes moved."""
        moved, given_back = 0, 0
        source = os.open(self.pages.pages, os.O_RDWR | os.O_CLOEXEC)
        try:
            new = self.pages.beside(".new")
            with PageWriter(new, self.pages) as kept:
                for run, piece in self._cut(pieces):
                    if piece is None:
                        kept.add(run, source)
                    else:
                        target = piece.offset + run.span.start - piece.start
                        files.copy_range(source, memory.descriptor, run.offset, target, run.length)
                        moved += run.length
                    end = run.offset + run.length
                    if end - given_back >= _GIVE_BACK:
                        files.punch(source, given_back, end - given_back)
                        given_back = end
            new.replace(self.pages)
        finally:
            os.close(source)
        return moved

    def _cut(self, pieces: Sequence[Piece]) -> Iterator[tuple[Run, Piece | None]]:
        """Yield the runs of pages cut at the bounds of the pieces, each with its piece."""
        index = 0
        for run in self.pages.runs():
            for span, found in cow_plan.split(run.span, pieces, index):
                index = max(index, found)
                yield run.part(span), pieces[found] if found >= 0 else None

    def map(self, pieces: Sequence[Piece], memory: _MemoryFile) -> None:
        """Rewrite the areas: pieces as mappings of the file, the rest as it was."""
        number = memory.entry(self.memory_map.exe_file_id, self.folder)
        rewritten = []
        index = 0
        for vma in self.memory_map.vmas:
            if vma.status & cow_plan.GUARD:  # overlaps others, and follows them
                rewritten.append(vma)
                continue
            for part, found in cow_plan.split(Interval(vma.start, vma.end), pieces, index):
                rewritten.append(_part_of(vma, part))
                if found >= 0:
                    index = found
                    _map_file(rewritten[-1], number, pieces[found])
        del self.memory_map.vmas[:]
        self.memory_map.vmas.extend(rewritten)
        self.header.encode([self.memory_map])
        self.header.write(self.path)


def _part_of(vma: Any, part: Interval) -> Any:
    """Return the entry of a part of an area."""
    entry = type(vma)()
    entry.CopyFrom(vma)
    entry.start, entry.end = part
    if vma.status & cow_plan.FILE_PRIVATE:
        entry.pgoff = vma.pgoff + part.start - vma.start
    return entry


def _map_file(entry: Any, number: int, piece: Piece) -> None:
    """Make an entry a private mapping of the file, for which the right to read is enough."""
    entry.status = (entry.status & ~cow_plan.ANON_PRIVATE) | cow_plan.FILE_PRIVATE
    entry.flags &= ~cow_plan.MAP_ANONYMOUS
    entry.shmid = number
    entry.pgoff = piece.offset
    entry.fdflags = os.O_RDONLY


def _files() -> Any:
    """Return the generated module of fdinfo.proto."""
    return images.module("fdinfo")


def _largest_file(descriptor: int) -> int:
    """Return the size of the largest file that the file system holds, a power of two."""
    size = 1 << 62
    while True:
        try:
            os.ftruncate(descriptor, size)
        except OSError as error:
            if error.errno not in (errno.EFBIG, errno.EINVAL) or size <= PAGE:
                raise
            size >>= 1
        else:
            os.ftruncate(descriptor, 0)
            return size
