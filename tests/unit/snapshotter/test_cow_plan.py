# SPDX-License-Identifier: Apache-2.0
"""Which parts of a memory become mappings of a file."""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless_snapshotter import cow_plan
from aetherless_snapshotter.cow_plan import Interval, Piece, Thresholds

ANONYMOUS = cow_plan.MAP_PRIVATE | cow_plan.MAP_ANONYMOUS
ANON_PRIVATE = cow_plan.REGULAR | cow_plan.ANON_PRIVATE
FILE_PRIVATE = cow_plan.REGULAR | cow_plan.FILE_PRIVATE
FINE = Thresholds(min_bytes=4, max_gap=8)


@dataclass
class Area:
    """A stand-in for CRIU's entry, whose generated class the plan does not need."""

    start: int
    end: int
    status: int = ANON_PRIVATE
    flags: int = ANONYMOUS
    madv: int = 0


def plan(vmas: list[Area], runs: list[tuple[int, int]], most: int = 100) -> list[tuple[int, int]]:
    """Plan with small thresholds."""
    spans = [Interval(*run) for run in runs]
    return [(part.start, part.end) for part in cow_plan.plan(vmas, lambda: spans, FINE, most)]


@pytest.mark.parametrize(
    "kept",
    [
        Area(0, 1, status=cow_plan.REGULAR | 1 << 8, flags=0x21),  # shared
        Area(0, 1, flags=ANONYMOUS | 0x100),  # growsdown
        Area(0, 1, flags=ANONYMOUS | 0x2000),  # locked
        Area(0, 1, flags=ANONYMOUS | 0x40000),  # huge pages
        Area(0, 1, flags=0x21),  # shared by its flags
        Area(0, 1, flags=ANONYMOUS | 0x8),  # droppable
        Area(0, 1, status=ANON_PRIVATE | 1 << 3),  # vdso
        Area(0, 1, status=ANON_PRIVATE | 1 << 12),  # vvar
        Area(0, 1, status=ANON_PRIVATE | 1 << 13),  # ring of asynchronous I/O
        Area(0, 1, status=FILE_PRIVATE | 1 << 14),  # memfd
        Area(0, 1, status=cow_plan.GUARD),
        Area(0, 1, madv=1 << 18),  # wiped on fork
        Area(0, 1, madv=1 << 12),  # mergeable
    ],
)
def test_what_is_not_plain_private_memory_stays(kept: Area) -> None:
    """Neither what others share nor what the kernel treats apart."""
    assert not cow_plan.is_movable(kept)


@pytest.mark.parametrize(
    "moved",
    [
        Area(0, 1),
        Area(0, 1, status=ANON_PRIVATE | cow_plan.HEAP),
        Area(0, 1, status=FILE_PRIVATE, flags=cow_plan.MAP_PRIVATE),
        Area(0, 1, flags=ANONYMOUS | 0x4000),  # not reserved
        Area(0, 1, madv=1 << 10 | 1 << 15),  # not copied on fork, no huge pages
    ],
)
def test_plain_private_memory_moves(moved: Area) -> None:
    """The heap, what a program mapped, and written parts of private files."""
    assert cow_plan.is_movable(moved)


def test_short_gaps_come_along_and_long_ones_stay() -> None:
    """Pages that were never there make no page of the file when they are used."""
    assert plan([Area(0, 100)], [(10, 14), (20, 30), (60, 70), (95, 100)]) == [
        (10, 30),
        (60, 70),
        (95, 100),
    ]
    assert plan([Area(0, 100)], [(5, 95)]) == [(0, 100)]


def test_gaps_of_files_stay() -> None:
    """What was not written is the file's own."""
    file = Area(0, 100, status=FILE_PRIVATE, flags=cow_plan.MAP_PRIVATE)
    assert plan([file], [(2, 10), (11, 13), (14, 20)]) == [(2, 10), (14, 20)]


def test_few_pages_are_copied() -> None:
    """A mapping of its own would cost more."""
    assert plan([Area(0, 100), Area(100, 200)], [(0, 3), (150, 160)]) == [(150, 160)]


def test_a_run_over_several_areas_is_cut() -> None:
    """CRIU joins the pages of neighbours."""
    neighbours = [Area(0, 10), Area(10, 20, madv=1 << 18), Area(20, 30)]
    assert plan(neighbours, [(0, 30)]) == [(0, 10), (20, 30)]


def test_guarded_areas_stay() -> None:
    """Older kernels have no guards within mappings of files."""
    assert plan([Area(0, 50), Area(50, 99), Area(8, 9, status=cow_plan.GUARD)], [(0, 99)]) == [
        (50, 99)
    ]


def test_anonymous_memory_stays_on_demand() -> None:
    """Then only what was written of files moves."""
    areas = [Area(0, 10), Area(10, 20, status=FILE_PRIVATE, flags=cow_plan.MAP_PRIVATE)]
    runs = [Interval(0, 20)]
    assert cow_plan.plan(areas, lambda: runs, FINE, 9, anonymous=False) == [(10, 20)]


@given(st.sets(st.integers(0, 2000)), st.integers(1, 20))
def test_there_are_never_too_many(pages: set[int], most: int) -> None:
    """A scattered memory gets coarser parts, never more than a process may have."""
    runs = [(page * 4, page * 4 + 4) for page in sorted(pages)]
    found = plan([Area(0, 10000)], runs, most)
    assert len(found) <= most
    assert all(a[1] <= b[0] for a, b in pairwise(found))


@st.composite
def intervals(draw: st.DrawFn) -> list[Interval]:
    """Return sorted intervals that don't overlap, some of them adjacent."""
    bounds = sorted(draw(st.sets(st.integers(0, 100))))
    cut = [Interval(a, b) for a, b in pairwise(bounds)]
    return [one for one in cut if draw(st.booleans())]


@given(intervals(), intervals())
def test_a_split_covers_each_page_once(runs: list[Interval], parts: list[Interval]) -> None:
    """Each page of a run comes once, with the piece it lies in, whatever is skipped before."""
    pieces = [Piece(*part, 0) for part in parts]
    expected = {
        page: next((n for n, one in enumerate(pieces) if one.start <= page < one.end), -1)
        for run in runs
        for page in range(*run)
    }
    seen: dict[int, int] = {}
    index = 0
    for run in runs:
        for part, found in cow_plan.split(run, pieces, index):
            index = max(index, found)
            assert not seen.keys() & set(range(*part))
            seen.update(dict.fromkeys(range(*part), found))
    assert seen == expected
