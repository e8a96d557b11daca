# SPDX-License-Identifier: Apache-2.0
"""The bytes that docs/ipc.md shows are what rings and clients write, and what they read."""

from __future__ import annotations

import mmap
import re
import struct
from typing import Any

import pytest
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, RING

from aetherless_client.calls import Request, Response, Status, request, response
from aetherless_ring.layout import MAGIC, VERSION, Direction, RecordType
from framework.programs import REPOSITORY

PAGE = (REPOSITORY / "docs" / "ipc.md").read_text()
LINE = re.compile(r"^([0-9a-f]{5})  ((?:[0-9a-f]{2} ){15}[0-9a-f]{2})  ", re.MULTILINE)
SKIP = re.compile(r"\(sequence (\d+)\) is `((?:[0-9a-f]{2} ){15}[0-9a-f]{2})`")
CALL = request(7, 0, 1, b"", b"upper", b"hello")
ANSWER = response(7, Status.RESULT, b"HELLO")


@pytest.fixture(params=IMPLEMENTATIONS)
def ring(request: pytest.FixtureRequest) -> Any:
    """Return each implementation of the ring."""
    return IMPLEMENTATIONS[request.param]


def zeros() -> mmap.mmap:
    """Return memory for a region, at a page's beginning."""
    return mmap.mmap(-1, LAYOUT.region_bytes)


def shown() -> mmap.mmap:
    """Return the region that the page shows: the lines it has, zeros elsewhere."""
    region = zeros()
    for offset, line in LINE.findall(PAGE):
        at = int(offset, 16)
        region[at : at + 16] = bytes.fromhex(line)
    return region


def test_the_region_is_what_a_call_leaves(ring: Any) -> None:
    """To the byte: the request was taken, the answer waits."""
    region = zeros()
    sizes = LAYOUT.region_bytes, RING, 1
    struct.pack_into("=8sIIQQQ", region, 0, MAGIC, VERSION, 0, *sizes)
    ring.Producer(region, Direction.TO_PEER, RING).publish(CALL, RecordType.REQUEST)
    ring.Consumer(region, Direction.TO_PEER, RING).receive()
    ring.Producer(region, Direction.FROM_PEER, RING).publish(ANSWER, RecordType.RESPONSE)
    assert region[:] == shown()[:]


def test_the_records_are_what_the_page_says(ring: Any) -> None:
    """Read by the ring, then by the client."""
    region = shown()
    kind, payload = ring.Consumer(region, Direction.TO_PEER, RING).receive()
    assert (kind, Request.parse(payload)) == (1, Request(7, 0, 1, b"", "upper", b"hello"))
    kind, payload = ring.Consumer(region, Direction.FROM_PEER, RING).receive()
    assert (kind, Response.parse(payload)) == (2, Response(7, Status.RESULT, b"HELLO"))


def test_the_skip_is_what_a_producer_writes(ring: Any) -> None:
    """It closes the lap when the next record has no place in one piece."""
    region = zeros()
    producer = ring.Producer(region, Direction.TO_PEER, RING)
    consumer = ring.Consumer(region, Direction.TO_PEER, RING)
    ((number, skip),) = SKIP.findall(PAGE)
    for _ in range(int(number) + 1):
        producer.publish(bytes(RING // (int(number) + 1)), RecordType.USER)
        consumer.receive()
    assert bytes.fromhex(skip) in region[:]
