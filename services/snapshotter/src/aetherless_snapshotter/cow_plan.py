# SPDX-License-Identifier: Apache-2.0
"""Which parts of a process's memory become private mappings of a file. Pure; nothing is read.

Addresses are of the dumped process, in bytes; all intervals are half-open and sorted.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple, Protocol, TypeVar

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Iterator, Sequence

# Bits of vma_entry.status (criu/include/image.h).
REGULAR, HEAP, FILE_PRIVATE, ANON_PRIVATE, GUARD = 1, 1 << 5, 1 << 6, 1 << 9, 1 << 16
# Bits of vma_entry.flags (mmap(2)); the lowest four are the type of the mapping.
MAP_TYPE, MAP_PRIVATE, MAP_ANONYMOUS = 0xF, 0x2, 0x20
_MAP_GROWSDOWN, _MAP_LOCKED, _MAP_HUGETLB = 0x100, 0x2000, 0x40000
#: A stack moves its guard, a locked area is resident by intent, a huge page has no small file.
_KEPT_FLAGS = _MAP_GROWSDOWN | _MAP_LOCKED | _MAP_HUGETLB
# Advice as bits of vma_entry.madv, by its number in madvise(2).
_MERGEABLE, _WIPEONFORK = 1 << 12, 1 << 18
#: The kernel takes this advice for anonymous memory alone.
_ANONYMOUS_ADVICE = _MERGEABLE | _WIPEONFORK


class Vma(Protocol):
    """What is read of CRIU's vma_entry."""

    start: int
    end: int
    status: int
    flags: int
    madv: int


class Span(Protocol):
    """Anything from ``start`` to ``end``."""

    @property
    def start(self) -> int:
        """Where it begins."""

    @property
    def end(self) -> int:
        """Where it ends."""


S = TypeVar("S", bound=Span)


class Interval(NamedTuple):
    """A part of an address space."""

    start: int
    end: int


class Area(NamedTuple):
    """An area whose pages may move to a file; gaps of up to ``max_gap`` bytes may come along."""

    start: int
    end: int
    max_gap: int


class Piece(NamedTuple):
    """A part that becomes a mapping of the file from ``offset`` on."""

    start: int
    end: int
    offset: int


@dataclass(frozen=True)
class Thresholds:
    """When a mapping of its own is worth it.

    Attributes:
        min_bytes: a part with fewer bytes of pages is copied at restore: a mapping and its faults
            cost more.
        max_gap: a longer run of pages that were never there stays anonymous, so that its first
            use makes no page in the file.
    """

    min_bytes: int
    max_gap: int

    def coarser(self) -> Thresholds:
        """Return thresholds that lead to fewer parts."""
        return Thresholds(self.min_bytes * 2, self.max_gap * 2)


@dataclass
class _Growing:
    """A part of an area while its runs of pages are still coming."""

    area: Area
    start: int
    end: int
    filled: int


def is_movable(vma: Vma) -> bool:
    """Tell whether the memory of ``vma`` is private and plain enough to come from a file.

    Shared mappings, growing stacks, what the kernel puts there (vdso, vvar, vsyscall), rings of
    asynchronous I/O, shadow stacks, memfds, locked and huge areas stay as they are.
    """
    kind = vma.status & ~HEAP
    return (
        kind in (REGULAR | ANON_PRIVATE, REGULAR | FILE_PRIVATE)
        and vma.flags & MAP_TYPE == MAP_PRIVATE
        and not vma.flags & _KEPT_FLAGS
        and not vma.madv & _ANONYMOUS_ADVICE
    )


def areas(vmas: Sequence[Vma], max_gap: int, *, anonymous: bool) -> list[Area]:
    """Return the areas whose pages may move.

    The gaps of a private file mapping hold what its own file has, so they never come along.
    ``anonymous`` is whether anonymous memory may move at all.
    """
    guards = [vma for vma in vmas if vma.status & GUARD]
    found = []
    for vma in vmas:
        is_file = bool(vma.status & FILE_PRIVATE)
        if not is_movable(vma) or not (is_file or anonymous):
            continue
        if any(guard.start < vma.end and vma.start < guard.end for guard in guards):
            continue
        found.append(Area(vma.start, vma.end, 0 if is_file else max_gap))
    return found


def overlaps(areas: Iterable[S], runs: Iterable[Interval]) -> Iterator[tuple[S, Interval]]:
    """Yield each part of a run that lies in an area, with its area."""
    remaining = iter(areas)
    area = next(remaining, None)
    for run in runs:
        while area is not None and area.end <= run.start:
            area = next(remaining, None)
        while area is not None and area.start < run.end:
            yield area, Interval(max(area.start, run.start), min(area.end, run.end))
            if area.end > run.end:
                break
            area = next(remaining, None)
        if area is None:
            return


def parts(areas: Iterable[Area], runs: Iterable[Interval], min_bytes: int) -> Iterator[Interval]:
    """Yield what of the areas is worth a mapping of its own, given the runs of pages that exist."""
    growing: _Growing | None = None
    for area, run in overlaps(areas, runs):
        if growing and growing.area == area and run.start - growing.end <= area.max_gap:
            growing.end = run.end
            growing.filled += run.end - run.start
            continue
        yield from _finished(growing, min_bytes)
        start = area.start if run.start - area.start <= area.max_gap else run.start
        growing = _Growing(area, start, run.end, run.end - run.start)
    yield from _finished(growing, min_bytes)


def _finished(part: _Growing | None, min_bytes: int) -> Iterator[Interval]:
    """Yield a part that is large enough; a short rest of its area comes along."""
    if part is None or part.filled < min_bytes:
        return
    end = part.area.end if part.area.end - part.end <= part.area.max_gap else part.end
    yield Interval(part.start, end)


def plan(
    vmas: Sequence[Vma],
    runs: Callable[[], Iterable[Interval]],
    thresholds: Thresholds,
    most: int,
    *,
    anonymous: bool = True,
) -> list[Interval]:
    """Return the parts to move, at most ``most``: coarser ones when there are too many.

    ``runs`` gives the runs of pages that exist, anew at each call.
    """
    while True:
        movable = areas(vmas, thresholds.max_gap, anonymous=anonymous)
        found: list[Interval] = []
        for part in parts(movable, runs(), thresholds.min_bytes):
            if len(found) == most:
                break
            found.append(part)
        else:
            return found
        thresholds = thresholds.coarser()


def split(run: Interval, pieces: Sequence[Piece], first: int) -> Iterator[tuple[Interval, int]]:
    """Yield ``run`` cut at the bounds of pieces: each part with its piece's index, or -1.

    ``first`` is the index of the first piece that may overlap.
    """
    position = run.start
    index = first
    while position < run.end:
        while index < len(pieces) and pieces[index].end <= position:
            index += 1
        if index == len(pieces) or pieces[index].start >= run.end:
            yield Interval(position, run.end), -1
            return
        piece = pieces[index]
        if piece.start > position:
            yield Interval(position, piece.start), -1
            position = piece.start
        end = min(piece.end, run.end)
        yield Interval(position, end), index
        position = end
