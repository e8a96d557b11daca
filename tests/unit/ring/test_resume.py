# SPDX-License-Identifier: Apache-2.0
"""Records that are held, and a consumer that takes a dead one's place."""

from __future__ import annotations

import random
import struct
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, PAIRS, RING, Pair, pair

from aetherless_ring.errors import RingCorruptError, RingEmptyError, RingFullError
from aetherless_ring.layout import ControlField, Direction, Sleep, stride_of


@pytest.fixture(params=PAIRS, ids="-to-".join)
def ring(request: pytest.FixtureRequest) -> Pair:
    """Return a ring with ends of two implementations."""
    return pair(*request.param)


def next_consumer(ring: Pair, name: str) -> Any:
    """Return a consumer that goes on in the ring."""
    return IMPLEMENTATIONS[name].Consumer(ring.memory, Direction.TO_PEER, RING, resume=True)


def set_word(ring: Pair, field: ControlField, value: int) -> None:
    """Write a u64 of the control block."""
    struct.pack_into("@Q", ring.control, field, value)


def word(ring: Pair, field: ControlField) -> int:
    """Read a u64 of the control block."""
    return int(struct.unpack_from("@Q", ring.control, field)[0])


def test_a_held_record_keeps_its_place(ring: Pair) -> None:
    """A full ring stays full until the end of what is held is given to release."""
    payload = b"x" * 1008
    while ring.producer.publish_many([payload]):
        pass
    kind, taken, end = ring.consumer.hold()
    assert (kind, taken, end) == (0, payload, 1024)
    assert ring.consumer.hold()[2] == 2048
    with pytest.raises(RingFullError):
        ring.producer.publish(payload)
    ring.consumer.release(end)
    ring.producer.publish(payload)
    with pytest.raises(RingFullError):
        ring.producer.publish(payload)
    ring.consumer.release()
    ring.producer.publish(payload)
    assert word(ring, ControlField.CONSUMED) == 2048


def test_holding_an_empty_ring(ring: Pair) -> None:
    """It is empty, at once or after a time."""
    for times in ((), (0.01, 0.001)):
        with pytest.raises(RingEmptyError):
            ring.consumer.hold(*times)


@pytest.mark.parametrize("end", [0, 63, 100, 192, 2**40])
def test_only_what_is_held_is_released(ring: Pair, end: int) -> None:
    """Not what is released already, not between two records, not what was not taken."""
    ring.producer.publish_many([b"a", b"b", b"c"])
    ring.consumer.release(ring.consumer.hold()[2])
    ring.consumer.hold()
    with pytest.raises(ValueError, match="held"):
        ring.consumer.release(end)


def test_a_producer_too_far_ahead_of_what_is_held_is_told(ring: Pair) -> None:
    """The bound is the ring's size above the index that was given back."""
    ring.producer.publish(b"one")
    ring.consumer.hold()
    set_word(ring, ControlField.PRODUCED, RING + 64)
    with pytest.raises(RingCorruptError, match="index"):
        ring.consumer.hold()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_what_was_held_comes_again(ring: Pair, name: str) -> None:
    """The next consumer begins behind what was given back, and goes on from there."""
    payloads = [bytes([number]) * 100 for number in range(5)]
    ring.producer.publish_many(payloads, 4)
    ring.consumer.release(ring.consumer.hold()[2])
    ring.consumer.hold()
    consumer = next_consumer(ring, name)
    assert [consumer.receive() for _ in range(4)] == [(4, payload) for payload in payloads[1:]]
    ring.producer.publish(b"after")
    assert consumer.receive() == (0, b"after")


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_ring_is_resumed_at_a_skip(ring: Pair, name: str) -> None:
    """The first record that the next consumer meets closes the end of the buffer."""
    size = RING // 4 - 4096
    ring.producer.publish_many([bytes(size)] * 4)
    assert len(ring.consumer.receive_many(4)) == 4
    ring.producer.publish(bytes(LAYOUT.largest_payload), 9)
    consumer = next_consumer(ring, name)
    assert consumer.receive() == (9, bytes(LAYOUT.largest_payload))


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_only_the_first_sequence_is_taken_as_it_is(ring: Pair, name: str) -> None:
    """The second must be the next; and a first one that was damaged fails by its checksum."""
    ring.producer.publish_many([b"a", b"b", b"c", b"d"])
    ring.consumer.receive()
    consumer = next_consumer(ring, name)
    assert consumer.receive() == (0, b"b")
    ring.data[2 * 64 + 12] ^= 8
    with pytest.raises(RingCorruptError, match="sequence"):
        consumer.receive()
    with pytest.raises(RingCorruptError, match="checksum"):
        next_consumer(ring, name).receive()


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
@pytest.mark.parametrize(
    ("consumed", "produced"),
    [(1, 64), (0, 65), (128, 64), (0, RING + 64), (2**64 - 64, 0), (0, 2**63)],
)
def test_indices_that_cannot_be_are_not_resumed(name: str, consumed: int, produced: int) -> None:
    """Between two records, the wrong way round, or further apart than the ring is large."""
    ring = pair(name, name)
    set_word(ring, ControlField.CONSUMED, consumed)
    set_word(ring, ControlField.PRODUCED, produced)
    with pytest.raises(RingCorruptError, match="index") as raised:
        next_consumer(ring, name)
    assert (raised.value.expected, raised.value.actual) == (produced, consumed)


def test_the_next_consumer_is_awake(ring: Pair) -> None:
    """How the one before it slept is not its own."""
    set_word(ring, ControlField.CONSUMER_ASLEEP, Sleep.ON_DOORBELL)
    next_consumer(ring, "native")
    assert word(ring, ControlField.CONSUMER_ASLEEP) == Sleep.AWAKE


def test_a_producer_does_not_resume(ring: Pair) -> None:
    """Only consumers take another's place."""
    with pytest.raises(TypeError):
        type(ring.producer)(ring.memory, Direction.TO_PEER, RING, resume=True)


@given(
    names=st.sampled_from(PAIRS),
    following=st.sampled_from(tuple(IMPLEMENTATIONS)),
    steps=st.lists(st.integers(-3, 3000), max_size=120),
)
def test_at_least_once(names: tuple[str, str], following: str, steps: list[int]) -> None:
    """Whatever is put in, held, released or taken over: all from the last release on comes again.

    A step is a payload's length, or 0: hold the next; -1: release the oldest held; -2: release all;
    -3: another consumer takes the place.
    """
    ring = pair(*names)
    chance = random.Random(len(steps))
    inside: list[bytes] = []  # in the ring, those that are held first
    ends: list[int] = []
    for step in steps:
        if step > 0:
            payload = chance.randbytes(step)
            if ring.producer.publish_many([payload]):
                inside.append(payload)
            else:
                held_or_left = sum(stride_of(len(each)) for each in inside)
                assert held_or_left + 2 * stride_of(step) > RING
        elif step == 0 and len(ends) < len(inside):
            _, payload, end = ring.consumer.hold()
            assert payload == inside[len(ends)]
            ends.append(end)
        elif step == -1 and ends:
            ring.consumer.release(ends.pop(0))
            inside.pop(0)
        elif step == -2:
            ring.consumer.release()
            del inside[: len(ends)], ends[:]
        elif step == -3:
            ring.consumer = next_consumer(ring, following)
            ends.clear()
    assert [ring.consumer.hold()[1] for _ in inside[len(ends) :]] == inside[len(ends) :]
