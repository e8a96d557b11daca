# SPDX-License-Identifier: Apache-2.0
"""Where things lie in a region and in a record. docs/ipc.md has the tables.

All integers are in native byte order: a region never leaves its host. Indices count bytes since
the region was made and never wrap; an index modulo the ring's size is an offset in its data area.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

MAGIC = b"AETHRING"
VERSION = 1
PAGE = 4096
# Two lines: processors fetch them in pairs, so a neighbour would be dragged along.
CACHE_LINES = 128
SMALLEST_RING = 64 << 10
LARGEST_RING = 1 << 30
# A record: the words checksum, length, type and sequence, then the payload.
HEAD = 16
ALIGNMENT = 64
SKIP = 0xFFFFFFFF
LARGEST_PAYLOAD = 16 << 20


class HeaderField(IntEnum):
    """Offsets in the header page."""

    MAGIC = 0  # 8 bytes
    VERSION = 8  # u32
    CLOSED = 12  # u32; not 0 once the region is of no more use. Only ever set
    REGION_BYTES = 16  # u64, the whole region
    RING_BYTES = 24  # u64, one data area
    GENERATION = 32  # u64, the attachment that this region was handed out for; 0 before


class ControlField(IntEnum):
    """Offsets in a control block; each field has cache lines of its own."""

    PRODUCED = 0 * CACHE_LINES  # u64 index, written by the producer only
    CONSUMED = 1 * CACHE_LINES  # u64 index, written by the consumer only
    PRODUCER_ASLEEP = 2 * CACHE_LINES  # u32 Sleep; the consumer may clear it
    CONSUMER_ASLEEP = 3 * CACHE_LINES  # u32 Sleep; the producer may clear it


class Sleep(IntEnum):
    """How a side that waits wants to be woken."""

    AWAKE = 0
    ON_FUTEX = 1  # FUTEX_WAKE on the word that says so
    ON_DOORBELL = 2  # 8 bytes, the number 1, to its eventfd or pipe


class RecordType(IntEnum):
    """What a record is, in its type word. Others are the users' own."""

    USER = 0
    REQUEST = 1
    RESPONSE = 2
    PING = 3
    PONG = 4
    SHUTDOWN = 5


class Direction(IntEnum):
    """The two rings of a channel."""

    TO_PEER = 0
    FROM_PEER = 1


@dataclass(frozen=True, slots=True)
class Layout:
    """The offsets of a region whose rings have this many bytes each (see ``ring_problem``)."""

    ring_bytes: int

    @property
    def region_bytes(self) -> int:
        """The whole region: header, two control blocks, two data areas."""
        return PAGE + len(Direction) * (PAGE + self.ring_bytes)

    @property
    def largest_payload(self) -> int:
        """The most bytes that a record carries."""
        return min(LARGEST_PAYLOAD, self.ring_bytes // 4)

    def control_offset(self, direction: Direction) -> int:
        """Where a direction's control block begins."""
        return PAGE + direction * PAGE

    def data_offset(self, direction: Direction) -> int:
        """Where a direction's data area begins; page-aligned."""
        return PAGE + len(Direction) * PAGE + direction * self.ring_bytes


def stride_of(length: int) -> int:
    """Return the bytes from a record with such a payload to the next."""
    return (HEAD + length + ALIGNMENT - 1) & ~(ALIGNMENT - 1)


def ring_problem(ring_bytes: int) -> str:
    """Say what is wrong with a ring's size; the empty string if nothing is."""
    if not SMALLEST_RING <= ring_bytes <= LARGEST_RING:
        return f"must be {SMALLEST_RING} to {LARGEST_RING}, is {ring_bytes}"
    if ring_bytes & (ring_bytes - 1):
        return f"must be a power of two, is {ring_bytes}"
    return ""
