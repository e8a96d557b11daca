# SPDX-License-Identifier: Apache-2.0
"""Broadcasting through bounded queues."""

from __future__ import annotations

import threading

import pytest

from aetherless_common import errors
from aetherless_common.watch import Broadcaster

WAIT_S = 20.0


def test_each_subscriber_gets_each_item_in_order() -> None:
    """What was published before a subscription is not in it."""
    numbers: Broadcaster[int] = Broadcaster()
    numbers.publish(0)
    first = numbers.subscribe()
    numbers.publish(1)
    second = numbers.subscribe()
    numbers.publish(2)
    assert [first.get(), first.get(), second.get()] == [1, 2, 2]
    assert first.get(timeout=0) is None


def test_a_slow_subscriber_is_told_and_others_are_not_held_up() -> None:
    """The items that fitted come first, then the error; publishing goes on."""
    numbers: Broadcaster[int] = Broadcaster()
    slow, fast = numbers.subscribe(limit=2), numbers.subscribe()
    for number in range(5):
        numbers.publish(number)
    assert [slow.get(), slow.get()] == [0, 1]
    with pytest.raises(errors.ResourceExhausted) as caught:
        slow.get()
    assert (caught.value.reason, caught.value.metadata["queueLimit"]) == ("WATCHER_TOO_SLOW", "2")
    assert [fast.get() for _ in range(5)] == [0, 1, 2, 3, 4]


def test_room_that_came_back_does_not_hide_a_gap() -> None:
    """After an overflow nothing more is taken, even when the queue was emptied meanwhile."""
    numbers: Broadcaster[int] = Broadcaster()
    slow = numbers.subscribe(limit=1)
    numbers.publish(1)
    numbers.publish(2)
    assert slow.get() == 1
    numbers.publish(3)
    with pytest.raises(errors.ResourceExhausted):
        slow.get()


@pytest.mark.parametrize("by_owner", [True, False])
def test_close_ends_a_waiting_iteration(*, by_owner: bool) -> None:
    """A thread that waits in an iteration leaves it; items that were there are handed out."""
    numbers: Broadcaster[int] = Broadcaster()
    subscription = numbers.subscribe()
    got: list[int] = []
    one = threading.Event()

    def read() -> None:
        for number in subscription:
            got.append(number)
            one.set()

    reading = threading.Thread(target=read)
    reading.start()
    numbers.publish(7)
    assert one.wait(WAIT_S)
    (numbers if by_owner else subscription).close()
    reading.join(WAIT_S)
    assert not reading.is_alive()
    assert got == [7]


def test_a_closed_subscription_is_forgotten() -> None:
    """Leaving the with-block drops it; a closed broadcaster gives closed subscriptions."""
    numbers: Broadcaster[int] = Broadcaster()
    with numbers.subscribe(limit=1) as subscription:
        pass
    numbers.publish(1)
    numbers.publish(2)
    assert subscription.get() is None
    numbers.close()
    assert list(numbers.subscribe()) == []


def test_concurrent_publishers_lose_nothing() -> None:
    """Four threads publish; a reader gets every item of each in its order."""
    numbers: Broadcaster[tuple[int, int]] = Broadcaster()
    subscription = numbers.subscribe(limit=4000)

    def publish(who: int) -> None:
        for number in range(1000):
            numbers.publish((who, number))

    threads = [threading.Thread(target=publish, args=(who,)) for who in range(4)]
    for thread in threads:
        thread.start()
    got = [subscription.get(WAIT_S) for _ in range(4000)]
    for who in range(4):
        assert [item[1] for item in got if item and item[0] == who] == list(range(1000))
