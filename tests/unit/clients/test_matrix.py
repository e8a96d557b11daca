# SPDX-License-Identifier: Apache-2.0
"""A record written by any client is read by every other: each pair, in processes of their own."""

from __future__ import annotations

import os
from itertools import product

import pytest

from aetherless_ring.layout import SMALLEST_RING, Layout
from framework.channel_peers import LANGUAGES, running

COUNT = 1000
LIMIT_S = 60.0


@pytest.mark.parametrize(("producer", "consumer"), [*product(LANGUAGES, LANGUAGES)])
def test_records_cross(producer: str, consumer: str) -> None:
    """Records of all sizes, past the end of the ring many times; both sides sleep and are woken."""
    region = os.memfd_create("aether-test-matrix")
    wakes = [os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC) for _ in range(2)]
    try:
        os.ftruncate(region, Layout(SMALLEST_RING).region_bytes)
        keep = [region, *wakes]
        rest = (COUNT, SMALLEST_RING)
        with (
            running(consumer, "consume", region, *wakes, *rest, keep=keep) as reader,
            running(producer, "produce", region, *wakes[::-1], *rest, keep=keep) as writer,
        ):
            said = [process.communicate(timeout=LIMIT_S)[0] for process in (writer, reader)]
            assert (writer.returncode, reader.returncode, *said) == (0, 0, "", "")
    finally:
        for descriptor in (region, *wakes):
            os.close(descriptor)
