# SPDX-License-Identifier: Apache-2.0
"""The memory pages in a dump, as a stream: which there are, and where in the file they lie.

``pagemap-<pid>.img`` says which pages a process has (its head names ``pages-<id>.img``), the other
file holds them one after the other. Neither is ever held in memory.
"""

from __future__ import annotations

import os
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NamedTuple

from aetherless_snapshotter import files, images
from aetherless_snapshotter.cow_plan import Interval

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path
    from typing import Self

PAGE = os.sysconf("SC_PAGE_SIZE")
#: The flag of a run whose pages the file holds.
PRESENT = 1 << 2


class Run(NamedTuple):
    """Consecutive pages: their addresses, their place in the pages file, and their flags."""

    span: Interval
    offset: int
    flags: int

    @property
    def length(self) -> int:
        """The bytes of the pages."""
        return self.span.end - self.span.start

    def part(self, span: Interval) -> Run:
        """Return the part of the run at the addresses ``span``."""
        return Run(span, self.offset + span.start - self.span.start, self.flags)


@dataclass(frozen=True)
class PageMap:
    """The pages of one process.

    Attributes:
        path: its pagemap image.
        pages: the image with the pages.
    """

    path: Path
    pages: Path

    @classmethod
    def of(cls, folder: Path, pid: int) -> PageMap:
        """Return the pages of process ``pid`` in the dump in ``folder``."""
        path = folder / f"pagemap-{pid}.img"
        with path.open("rb") as file:
            _, entries = images.stream(file)
            head = images.module("pagemap").pagemap_head.FromString(next(entries))
        return cls(path, folder / f"pages-{head.pages_id}.img")

    def beside(self, ending: str) -> PageMap:
        """Return files of the same names with an ending."""
        return PageMap(
            self.path.with_name(self.path.name + ending),
            self.pages.with_name(self.pages.name + ending),
        )

    def within(self, folder: Path) -> PageMap:
        """Return files of the same names in another folder."""
        return PageMap(folder / self.path.name, folder / self.pages.name)

    def replace(self, other: PageMap) -> None:
        """Take the place of another's files."""
        self.path.replace(other.path)
        self.pages.replace(other.pages)

    def runs(self) -> Iterator[Run]:
        """Yield the runs of pages that the file holds, by address."""
        kind = images.module("pagemap").pagemap_entry
        offset = 0
        with self.path.open("rb") as file:
            _, entries = images.stream(file)
            next(entries)
            for entry in entries:
                run = kind.FromString(entry)
                if not run.flags & PRESENT:
                    raise ValueError(f"{self.path.name} has pages that it does not hold")
                count = run.nr_pages or run.compat_nr_pages
                span = Interval(run.vaddr, run.vaddr + count * PAGE)
                yield Run(span, offset, run.flags)
                offset += count * PAGE

    def spans(self) -> Iterator[Interval]:
        """Yield the addresses of the runs."""
        return (run.span for run in self.runs())


class PageWriter:
    """Writes the images of a process's pages, run by run, sorted by address.

    Attributes:
        written: the bytes of pages so far.
    """

    def __init__(self, target: PageMap, head: PageMap) -> None:
        """Begin the new files of ``target``; the head names the pages file as that of ``head``."""
        self._kind: Any = images.module("pagemap").pagemap_entry
        self._map = target.path.open("xb")
        self._pages = target.pages.open("xb", buffering=0)
        self.written = 0
        with head.path.open("rb") as file:
            header, entries = images.stream(file)
            self._map.write(header)
            self._entry(next(entries))

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._map.close()
        self._pages.close()

    def add(self, run: Run, source: int) -> None:
        """Append a run of pages, copied from its place in the descriptor ``source``."""
        files.copy_range(source, self._pages.fileno(), run.offset, self.written, run.length)
        self.written += run.length
        count = run.length // PAGE
        entry = self._kind(
            vaddr=run.span.start,
            compat_nr_pages=count & 0xFFFFFFFF,
            flags=run.flags,
            nr_pages=count,
        )
        self._entry(entry.SerializeToString())

    def _entry(self, entry: bytes) -> None:
        self._map.write(struct.pack("<I", len(entry)) + entry)
