# SPDX-License-Identifier: Apache-2.0
"""Host id ranges of functions."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_snapshotter.idranges import RANGE_SIZE, IdRanges

if TYPE_CHECKING:
    from pathlib import Path


def test_ranges_are_kept_and_distinct(tmp_path: Path) -> None:
    """A function keeps its range over restarts, and no two share one."""
    path = tmp_path / "ranges.json"
    first = IdRanges(path, 5).get("a")
    second = IdRanges(path, 5).get("b")
    assert IdRanges(path, 5).get("a") == first
    assert abs(first.first - second.first) >= RANGE_SIZE
    assert first.first % RANGE_SIZE == 0
    assert first.host_id(1000) == first.first + 1000


def test_a_released_range_is_given_out_again(tmp_path: Path) -> None:
    """A deleted function's range is free."""
    ranges = IdRanges(tmp_path / "ranges.json", 0)
    first = ranges.get("a")
    ranges.release("a")
    ranges.release("never")
    assert ranges.get("b") == first


def test_the_offset_keeps_orchestrators_apart(tmp_path: Path) -> None:
    """Two orchestrators begin at different ranges."""
    one = IdRanges(tmp_path / "one.json", 0x123456).get("a")
    two = IdRanges(tmp_path / "two.json", 0xABCDE0).get("a")
    assert one != two


def test_ids_stay_below_two_to_the_31(tmp_path: Path) -> None:
    """Some programs take larger ids for negative ones."""
    for offset in (0, 1, 0xFFFFFF):
        got = IdRanges(tmp_path / f"{offset}.json", offset).get("a")
        assert got.host_id(RANGE_SIZE - 1) < 2**31
