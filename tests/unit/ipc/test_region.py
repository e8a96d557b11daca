# SPDX-License-Identifier: Apache-2.0
"""A region's layout and its memory, without the service."""

from __future__ import annotations

import fcntl
import mmap
import os
import struct
from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless_ipc.region import SEALS, Region
from aetherless_ring.layout import (
    CACHE_LINES,
    LARGEST_RING,
    PAGE,
    SMALLEST_RING,
    ControlField,
    Direction,
    HeaderField,
    Layout,
    ring_problem,
)

RING = SMALLEST_RING


@given(st.integers(16, 30).map(lambda power: 1 << power))
def test_parts_do_not_overlap(ring_bytes: int) -> None:
    """Header, control blocks and data areas lie one after the other, page-aligned, to the end."""
    layout = Layout(ring_bytes)
    parts = [(0, PAGE)]
    parts += [(layout.control_offset(direction), PAGE) for direction in Direction]
    parts += [(layout.data_offset(direction), ring_bytes) for direction in Direction]
    ends = [offset + size for offset, size in parts]
    assert [offset for offset, _ in parts] == [0, *ends[:-1]]
    assert ends[-1] == layout.region_bytes
    assert all(offset % PAGE == 0 for offset, _ in parts)


def test_control_fields_share_no_cache_line() -> None:
    """Each is 128 bytes from the next, inside its page."""
    offsets = [int(field) for field in ControlField]
    assert {b - a for a, b in pairwise(offsets)} == {CACHE_LINES}
    assert offsets[-1] + CACHE_LINES <= PAGE


@pytest.mark.parametrize(
    ("size", "problem"),
    [
        (SMALLEST_RING, ""),
        (LARGEST_RING, ""),
        (SMALLEST_RING - 1, "must be 65536"),
        (2 * LARGEST_RING, "must be 65536"),
        (3 * SMALLEST_RING, "power of two"),
        (0, "must be"),
        (-1, "must be"),
    ],
)
def test_ring_sizes(size: int, problem: str) -> None:
    """Powers of two from 64 KiB to 1 GiB."""
    assert problem in ring_problem(size)
    assert bool(problem) == bool(ring_problem(size))


def test_header_at_its_documented_offsets() -> None:
    """Another language finds each field where layout.py says."""
    region = Region("aether-test", Layout(RING))
    region.hand_out(7)
    header = os.pread(region.descriptor, 64, 0)
    assert header[HeaderField.MAGIC : 8] == b"AETHRING"
    for field, kind, value in (
        (HeaderField.VERSION, "=I", 1),
        (HeaderField.CLOSED, "=I", 0),
        (HeaderField.REGION_BYTES, "=Q", Layout(RING).region_bytes),
        (HeaderField.RING_BYTES, "=Q", RING),
        (HeaderField.GENERATION, "=Q", 7),
    ):
        assert struct.unpack_from(kind, header, field) == (value,)
    region.close()


def test_size_and_seals_are_fixed() -> None:
    """It can't shrink, grow, lose its seals, or be made executable."""
    region = Region("aether-test", Layout(RING))
    assert fcntl.fcntl(region.descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    for size in (0, PAGE, 2 * region.layout.region_bytes):
        with pytest.raises(PermissionError):
            os.ftruncate(region.descriptor, size)
    with pytest.raises(PermissionError):
        fcntl.fcntl(region.descriptor, fcntl.F_ADD_SEALS, fcntl.F_SEAL_WRITE)
    with pytest.raises(PermissionError):
        os.fchmod(region.descriptor, 0o777)
    region.close()


def test_close_is_seen_through_another_mapping() -> None:
    """A peer sees the mark, and both wakes; the memory stays until it lets go."""
    region = Region("aether-test", Layout(RING))
    memory, *wakes = (os.dup(descriptor) for descriptor in region.hand_out(1))
    with mmap.mmap(memory, region.layout.region_bytes) as mapped:
        before = mapped[HeaderField.CLOSED]
        os.eventfd_write(wakes[0], 2**64 - 2)  # a peer can fill its counter
        region.close()
        assert (before, mapped[HeaderField.CLOSED]) == (0, 1)
        assert os.eventfd_read(wakes[1]) == 1
    for descriptor in (memory, *wakes):
        os.close(descriptor)
