# SPDX-License-Identifier: Apache-2.0
"""Batches of records in place, and views that outlive what they show."""

from __future__ import annotations

import gc
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, PAIRS, RING, Pair, pair

from aetherless_ring.errors import PayloadTooLargeError, RingCorruptError, RingEmptyError
from aetherless_ring.layout import stride_of

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(params=PAIRS, ids="-to-".join)
def ring(request: pytest.FixtureRequest) -> Pair:
    """Return a ring with ends of two implementations."""
    return pair(*request.param)


def test_a_batch_is_filled_and_read_in_place(ring: Pair) -> None:
    """Nothing is seen before the commit; then all of it, whole and in order."""
    with ring.producer.reserve_many([5, 100, 1]) as batch:
        for number, view in enumerate(batch.views):
            view[:] = bytes([number]) * len(view)
        assert ring.consumer.wait(0.0) is False
        batch.commit(6)
    with ring.consumer.peek_many(10) as peeked:
        assert len(peeked) == 3
        assert [bytes(view) for view in peeked.views] == [bytes(5), b"\1" * 100, b"\2"]
        assert peeked.types == [6, 6, 6]
        assert all(view.readonly for view in peeked.views)
    with pytest.raises(RingEmptyError):
        ring.consumer.receive()
    for end in (ring.producer, ring.consumer):
        assert (end.counts()["records"], end.counts()["bytes"]) == (3, 106)


@given(
    names=st.sampled_from(PAIRS),
    rounds=st.lists(
        st.tuples(st.lists(st.integers(1, 9000), max_size=12), st.integers(0, 12), st.booleans()),
        max_size=12,
    ),
)
def test_any_batches_come_out_in_order(
    names: tuple[str, str], rounds: list[tuple[list[int], int, bool]]
) -> None:
    """Sizes at random, past the end, committed or given up; taken in other batches."""
    ring = pair(*names)
    inside: list[bytes] = []
    number = 0
    for lengths, limit, kept in rounds:
        with ring.producer.reserve_many(lengths) as batch:
            payloads = [bytes([number + n & 255]) * len(v) for n, v in enumerate(batch.views)]
            for view, payload in zip(batch.views, payloads, strict=True):
                view[:] = payload
            if kept:
                batch.commit()
                inside += payloads
                number += len(payloads)
        with ring.consumer.peek_many(limit) as peeked:
            taken = [bytes(view) for view in peeked.views]
        assert taken == inside[:limit]
        del inside[:limit]
    assert [payload for _, payload in ring.consumer.receive_many(1000)] == inside


def test_a_batch_has_as_much_as_there_is_room_for(ring: Pair) -> None:
    """And none when the ring is full; an empty one is committed and released like any other."""
    batch = ring.producer.reserve_many([1008] * 100)
    assert len(batch) == RING // stride_of(1008)
    batch.commit()
    with ring.producer.reserve_many([1]) as none:
        assert len(none) == 0
        none.commit()
    with ring.consumer.peek_many(0) as none:
        assert none.views == []
    assert len(ring.consumer.receive_many(100)) == len(batch)


def test_a_batch_with_a_wrong_length_reserves_nothing(ring: Pair) -> None:
    """Whatever came before it in the batch."""
    with pytest.raises(PayloadTooLargeError):
        ring.producer.reserve_many([10, LAYOUT.largest_payload + 1])
    ring.producer.publish(b"next")
    assert ring.consumer.receive() == (0, b"next")


def test_a_peeked_batch_stays_until_it_is_released(ring: Pair) -> None:
    """No other use meanwhile; one that is dropped was never taken."""
    ring.producer.publish_many([b"a", b"b"])
    batch = ring.consumer.peek_many(2)
    for use in (ring.consumer.receive, ring.consumer.peek, ring.consumer.release):
        with pytest.raises(RuntimeError, match="not finished"):
            use()
    with pytest.raises(TypeError, match="peeked"):
        batch.commit()
    batch.release()
    with pytest.raises(ValueError, match="finished"):
        batch.commit()


def test_a_peeked_batch_ends_before_damage(ring: Pair) -> None:
    """The good records first; the damage with the next call."""
    ring.producer.publish_many([b"a", b"b", b"c"])
    ring.data[2 * 64 + 16] ^= 1
    with ring.consumer.peek_many(10) as batch:
        assert [bytes(view) for view in batch.views] == [b"a", b"b"]
    for _ in range(2):
        with pytest.raises(RingCorruptError):
            ring.consumer.peek_many(10)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_view_keeps_the_memory(name: str) -> None:
    """A view that outlives its record, its end and its region shows bytes, and harms nobody."""
    ring = pair(name, name)
    ring.producer.publish_many([b"a" * 100, b"b"])
    slot = ring.consumer.peek()
    views = [slot.view]
    slot.release()
    with ring.consumer.peek_many(1) as batch:
        views += batch.views
    with ring.producer.reserve(10) as reserved:
        views.append(reserved.view)
    del ring, slot, batch, reserved
    gc.collect()
    assert [len(bytes(view)) for view in views] == [100, 1, 10]


def test_lengths_that_reserve_while_they_are_read_are_refused() -> None:
    """Whatever runs then has its record; no batch is laid over it."""
    ring = pair("native", "native")
    slots = []

    def lengths() -> Iterator[int]:
        slots.append(ring.producer.reserve(5))
        yield 5

    with pytest.raises(RuntimeError):
        ring.producer.reserve_many(lengths())
    slots[0].view[:] = b"whole"
    slots[0].commit()
    assert ring.consumer.receive() == (0, b"whole")
