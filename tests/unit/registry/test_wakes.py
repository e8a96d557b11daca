# SPDX-License-Identifier: Apache-2.0
"""The two halves of a wake find each other, in either order, or time tells them apart."""

from __future__ import annotations

import pytest

from aetherless.netplane.v1 import route_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry.wakes import PATIENCE_S, TOLERANCE_NS, WakeJoiner

ENDPOINT = "endpoints/f-r1-0"
INSTANCE = instance_pb2.Instance(
    name="instances/f-r1-0", workload=instance_pb2.Workload(function_id="f", revision=1)
)
START_NS = 10**18
PACKET = instance_pb2.WAKE_CAUSE_PACKET


def wake(at_ns: int = START_NS, **fields: object) -> instance_pb2.Wake:
    """Return a wake."""
    made = instance_pb2.Wake(cause=PACKET, client="10.0.0.1:7")
    made.MergeFrom(instance_pb2.Wake(**fields))  # type: ignore[arg-type]
    made.first_packet_time.FromNanoseconds(at_ns)
    made.restore_duration.FromMilliseconds(8)
    return made


def answer(at_ns: int = START_NS, endpoint: str = ENDPOINT, ms: int = 11) -> route_pb2.FirstAnswer:
    """Return a first answer."""
    made = route_pb2.FirstAnswer(endpoint=endpoint, function_id="f")
    made.first_packet_time.FromNanoseconds(at_ns)
    made.first_byte.FromMilliseconds(ms)
    return made


@pytest.mark.parametrize("wake_first", [True, False])
def test_halves_are_joined_in_either_order(*, wake_first: bool) -> None:
    """Times that differ a little are of the same packet."""
    joiner = WakeJoiner()
    near = answer(START_NS + TOLERANCE_NS)
    if wake_first:
        assert joiner.wake(INSTANCE, wake(), 0.0) == []
        (told,) = joiner.first_answer(near, 0.1)
    else:
        assert joiner.first_answer(near, 0.0) == []
        (told,) = joiner.wake(INSTANCE, wake(), 0.1)
    assert told.function_id == "f"
    assert told.notice.first_byte.ToMilliseconds() == 11
    assert told.notice.restore_duration.ToMilliseconds() == 8
    assert told.notice.cause == "packet"
    assert joiner.next_expiry() is None


@pytest.mark.parametrize(
    "other", [answer(START_NS + TOLERANCE_NS + 1), answer(endpoint="endpoints/g-r1-0")]
)
def test_others_are_not_joined(other: route_pb2.FirstAnswer) -> None:
    """Another packet's, or another endpoint's, answer is not this wake's."""
    joiner = WakeJoiner()
    joiner.wake(INSTANCE, wake(), 0.0)
    assert joiner.first_answer(other, 0.1) == []


def test_a_wake_without_an_answer_is_told_late() -> None:
    """After its patience, without a first byte; an answer without a wake is dropped."""
    joiner = WakeJoiner()
    joiner.wake(INSTANCE, wake(), 1.0)
    joiner.first_answer(answer(endpoint="endpoints/other"), 1.5)
    assert joiner.next_expiry() == 1.0 + PATIENCE_S
    assert joiner.expire(0.9 + PATIENCE_S) == []
    (told,) = joiner.expire(1.0 + PATIENCE_S)
    assert not told.notice.HasField("first_byte")
    assert joiner.expire(9.0) == []
    assert joiner.next_expiry() is None


def test_what_will_not_be_answered_is_told_at_once() -> None:
    """A failed wake, and one by command."""
    joiner = WakeJoiner()
    (failed,) = joiner.wake(INSTANCE, wake(failure_reason="RESTORE_FAILED"), 0.0)
    assert failed.notice.failure_reason == "RESTORE_FAILED"
    by_command = wake(cause=instance_pb2.WAKE_CAUSE_COMMAND)
    (commanded,) = joiner.wake(INSTANCE, by_command, 0.0)
    assert commanded.notice.cause == "command"
    assert joiner.next_expiry() is None
