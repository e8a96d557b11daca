# SPDX-License-Identifier: Apache-2.0
"""What every ring owes: the reference, the extension, and each against the other."""

from __future__ import annotations

import os
import random
import struct
from collections import deque
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, PAIRS, RING, Pair, pair

from aetherless_ring.errors import (
    PayloadTooLargeError,
    RingClosedError,
    RingCorruptError,
    RingEmptyError,
    RingFullError,
)
from aetherless_ring.layout import ControlField, HeaderField, RecordType, stride_of

if TYPE_CHECKING:
    from collections.abc import Callable

LARGEST = LAYOUT.largest_payload


@pytest.fixture(params=PAIRS, ids="-to-".join)
def ring(request: pytest.FixtureRequest) -> Pair:
    """Return a ring with ends of two implementations."""
    return pair(*request.param)


def test_a_record_comes_out_as_it_went_in(ring: Pair) -> None:
    """Type and payload are those of the record; then the ring is empty."""
    ring.producer.publish(b"hello", RecordType.REQUEST)
    assert ring.consumer.receive() == (RecordType.REQUEST, b"hello")
    with pytest.raises(RingEmptyError):
        ring.consumer.receive()


@pytest.mark.parametrize("length", [1, 15, 16, 47, 48, 49, 64, 255, 1000, LARGEST - 1, LARGEST])
def test_every_length_fits(ring: Pair, length: int) -> None:
    """From one byte to a quarter of the ring."""
    payload = random.Random(length).randbytes(length)
    ring.producer.publish(payload, 7)
    assert ring.consumer.receive() == (7, payload)


@pytest.mark.parametrize("length", [0, LARGEST + 1, RING])
def test_lengths_beyond_are_refused(ring: Pair, length: int) -> None:
    """Empty payloads and those above a quarter of the ring."""
    with pytest.raises(PayloadTooLargeError):
        ring.producer.publish(bytes(length))
    with pytest.raises(PayloadTooLargeError):
        ring.producer.reserve(length)
    assert ring.producer.counts()["refusals"] == 2


def test_a_full_ring_refuses_until_a_record_is_taken(ring: Pair) -> None:
    """It holds ring size / stride records, refuses the next, and takes one for each taken."""
    payload = b"x" * 1008
    for _ in range(RING // stride_of(len(payload))):
        ring.producer.publish(payload)
    with pytest.raises(RingFullError):
        ring.producer.publish(payload)
    ring.consumer.receive()
    ring.producer.publish(payload)
    with pytest.raises(RingFullError):
        ring.producer.publish(payload)


@given(
    names=st.sampled_from(PAIRS),
    steps=st.lists(st.integers(1, LARGEST) | st.integers(1, 200) | st.just(0), max_size=80),
    seed=st.integers(0, 2**32),
)
def test_any_sequence_comes_out_in_order(
    names: tuple[str, str], steps: list[int], seed: int
) -> None:
    """Sizes at random (0 takes one out), past the end of the buffer, to full and to empty."""
    ring = pair(*names)
    chance = random.Random(seed)
    inside: deque[tuple[int, bytes]] = deque()
    for step in steps:
        if step == 0:
            assert _taken(ring) == (inside.popleft() if inside else None)
            continue
        record = (chance.getrandbits(32), chance.randbytes(step))
        try:
            ring.producer.publish(record[1], record[0])
        except RingFullError:
            assert (
                sum(stride_of(len(payload)) for _, payload in inside) + stride_of(step) * 2 > RING
            )
        else:
            inside.append(record)
    while inside:
        assert _taken(ring) == inside.popleft()
    assert _taken(ring) is None


def _taken(ring: Pair) -> tuple[int, bytes] | None:
    try:
        taken: tuple[int, bytes] = ring.consumer.receive()
    except RingEmptyError:
        return None
    return taken


@given(
    names=st.sampled_from(PAIRS),
    length=st.integers(1, 500),
    place=st.integers(0, 515),
    flip=st.integers(1, 255),
)
def test_damage_of_any_byte_is_detected(
    names: tuple[str, str], length: int, place: int, flip: int
) -> None:
    """A changed byte of a record's head or payload is told; later calls are refused as well."""
    ring = pair(*names)
    ring.producer.publish(os.urandom(length), 1)
    ring.data[place % (16 + length)] ^= flip
    for _ in range(2):
        with pytest.raises(RingCorruptError) as raised:
            ring.consumer.receive()
        assert raised.value.expected != raised.value.actual
    with pytest.raises(RingCorruptError):
        ring.consumer.wait(0.0)


@pytest.mark.parametrize("flip", [1, 128])
@pytest.mark.parametrize("place", range(16))
def test_damage_of_a_skip_is_detected(ring: Pair, place: int, flip: int) -> None:
    """The record that closes the end of the buffer is checked like any other."""
    size = RING // 4 - 4096
    for _ in range(4):
        ring.producer.publish(bytes(size))
    for _ in range(4):
        ring.consumer.receive()
    ring.producer.publish(bytes(LARGEST))  # what is left is too short for it
    ring.data[4 * stride_of(size) + place] ^= flip
    with pytest.raises(RingCorruptError):
        ring.consumer.receive()


@pytest.mark.parametrize("index", [65, 0, 64 + RING + 64, 2**64 - 64, 2**63])
def test_a_producer_that_was_where_it_cannot_be_is_told(ring: Pair, index: int) -> None:
    """Between two records, behind the consumer, or more than a ring ahead of it."""
    ring.producer.publish(b"one")
    ring.consumer.receive()
    struct.pack_into("@Q", ring.control, ControlField.PRODUCED, index)
    with pytest.raises(RingCorruptError) as raised:
        ring.consumer.receive()
    assert (raised.value.fault, raised.value.actual) == ("index", index)


@pytest.mark.parametrize("index", [1, 3 * stride_of(LARGEST) + 64, 2**64 - 64, 2**63])
def test_a_consumer_that_is_where_it_cannot_be_is_told(ring: Pair, index: int) -> None:
    """Between two records, ahead of the producer, or going back."""
    ring.producer.publish_many([bytes(LARGEST)] * 3)
    struct.pack_into("@Q", ring.control, ControlField.CONSUMED, index)
    with pytest.raises(RingCorruptError) as raised:
        ring.producer.publish(bytes(LARGEST))
    assert (raised.value.fault, raised.value.actual) == ("index", index)


def test_a_slot_is_filled_and_read_in_place(ring: Pair) -> None:
    """Reserve, write, commit less than reserved; peek, read, release."""
    with ring.producer.reserve(100) as slot:
        slot.view[:5] = b"hello"
        slot.commit(5, 9)
    with ring.consumer.peek() as slot:
        assert (slot.type, bytes(slot.view)) == (9, b"hello")
        assert slot.view.readonly
    with pytest.raises(RingEmptyError):
        ring.consumer.peek()


def test_a_reservation_given_up_leaves_nothing(ring: Pair) -> None:
    """Nothing is seen of it, and the next record goes there."""
    with ring.producer.reserve(100):
        pass
    assert ring.consumer.wait(0.0) is False
    ring.producer.publish(b"next")
    assert ring.consumer.receive() == (0, b"next")


def test_one_slot_at_a_time(ring: Pair) -> None:
    """Another use of an end whose slot is open is an error, and a finished slot is finished."""
    slot = ring.producer.reserve(8)
    for use in (ring.producer.reserve, lambda _: ring.producer.publish(b"x")):
        with pytest.raises(RuntimeError, match="not finished"):
            use(8)
    slot.commit()
    with pytest.raises(ValueError, match="finished"):
        slot.commit()
    peeked = ring.consumer.peek()
    with pytest.raises(TypeError, match="peeked"):
        peeked.commit()


def test_batches(ring: Pair) -> None:
    """As many as there is room for; as many as there are."""
    payloads = [bytes([number]) * 1008 for number in range(200)]
    done = ring.producer.publish_many(payloads, 3)
    assert done == RING // 1024
    first = ring.consumer.receive_many(10)
    assert first == [(3, payload) for payload in payloads[:10]]
    rest = ring.consumer.receive_many(1000)
    assert [payload for _, payload in rest] == payloads[10:done]
    assert ring.consumer.receive_many(5) == []


def test_a_batch_of_one_type(ring: Pair) -> None:
    """It ends before a record of another type, which stays."""
    assert ring.consumer.receive_alike(5) == (0, [])
    ring.producer.publish_many([b"a", b"b", b"c"], 7)
    ring.producer.publish(b"d", 8)
    assert ring.consumer.receive_alike(2) == (7, [b"a", b"b"])
    assert ring.consumer.receive_alike(9) == (7, [b"c"])
    assert ring.consumer.receive_alike(0) == (0, [])
    assert ring.consumer.receive() == (8, b"d")
    ring.producer.publish_many([b"e", b"f"])
    ring.data[5 * 64 + 16] ^= 1
    assert ring.consumer.receive_alike(9) == (0, [b"e"])
    with pytest.raises(RingCorruptError):
        ring.consumer.receive_alike(9)


def test_a_batch_hands_out_what_lies_before_damage(ring: Pair) -> None:
    """The good records first; the damage with the next call."""
    ring.producer.publish_many([b"a", b"b", b"c"])
    ring.data[2 * 64 + 16] ^= 1
    assert ring.consumer.receive_many(10) == [(0, b"a"), (0, b"b")]
    with pytest.raises(RingCorruptError):
        ring.consumer.receive_many(10)


def test_counts(ring: Pair) -> None:
    """Records, payload bytes and refusals are counted on both sides."""
    ring.producer.publish_many([b"ab", b"cde"])
    ring.consumer.receive_many(5)
    for end in (ring.producer, ring.consumer):
        assert (end.counts()["records"], end.counts()["bytes"]) == (2, 5)
    assert ring.consumer.counts()["refusals"] == 1


def test_a_closed_region_ends_a_wait(ring: Pair) -> None:
    """What is there is still handed out; waiting for more is an error."""
    ring.producer.publish(b"last")
    struct.pack_into("@I", ring.memory, HeaderField.CLOSED, 1)
    assert ring.consumer.wait(5.0)
    assert ring.consumer.receive() == (0, b"last")
    with pytest.raises(RingClosedError):
        ring.consumer.wait(5.0)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize("size", [0, 4096, LAYOUT.region_bytes - 1, LAYOUT.region_bytes + 4096])
def test_memory_of_another_size_is_refused(name: str, size: int) -> None:
    """No end is made over memory that is not the region's."""
    make: Callable[..., object] = IMPLEMENTATIONS[name].Producer
    with pytest.raises(ValueError, match="no region"):
        make(bytearray(size), 0, RING)
