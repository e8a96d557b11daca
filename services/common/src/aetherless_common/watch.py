# SPDX-License-Identifier: Apache-2.0
"""Hands every published item to every subscriber, through a bounded queue each."""

from __future__ import annotations

import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Generic, Self, TypeVar

from aetherless_common.errors import watcher_too_slow

if TYPE_CHECKING:
    from collections.abc import Iterator

T = TypeVar("T")
DEFAULT_LIMIT = 1024


class Broadcaster(Generic[T]):
    """Publishing never waits: a subscriber that lags behind loses its subscription instead."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._subscriptions: set[Subscription[T]] = set()
        self._closed = False

    def publish(self, item: T) -> None:
        """Give the item to each subscriber, in the order of the calls."""
        with self._changed:
            for subscription in self._subscriptions:
                subscription._put(item)  # noqa: SLF001  # two halves of one thing
            self._changed.notify_all()

    def subscribe(self, limit: int = DEFAULT_LIMIT) -> Subscription[T]:
        """Return a subscription to all that is published from now on.

        Subscribe before reading the current state, and nothing is missed. At most ``limit`` items
        wait in it.
        """
        with self._changed:
            subscription = Subscription(self, self._changed, limit)
            if self._closed:
                subscription.closed = True
            else:
                self._subscriptions.add(subscription)
        return subscription

    def close(self) -> None:
        """End every subscription, present and future: the service is draining."""
        with self._changed:
            self._closed = True
            for subscription in self._subscriptions:
                subscription.closed = True
            self._subscriptions.clear()
            self._changed.notify_all()

    def _drop(self, subscription: Subscription[T]) -> None:
        with self._changed:
            subscription.closed = True
            self._subscriptions.discard(subscription)
            self._changed.notify_all()


class Subscription(Generic[T]):
    """One subscriber's queue; iterate over it, or ``get`` with a timeout. A context manager.

    In a streaming handler add ``context.add_callback(subscription.close)``, so that a client that
    goes away ends the iteration.
    """

    def __init__(self, owner: Broadcaster[T], changed: threading.Condition, limit: int) -> None:
        self.closed = False
        self._owner = owner
        self._changed = changed
        self._limit = limit
        self._items: deque[T] = deque()
        self._overflowed = False

    def get(self, timeout: float | None = None) -> T | None:
        """Return the next item; None after ``timeout`` seconds without one, or when closed.

        Raises:
            ResourceExhausted: WATCHER_TOO_SLOW, after the items that fitted were handed out.
        """
        ends_at = None if timeout is None else time.monotonic() + timeout
        with self._changed:
            while not (self._items or self._overflowed or self.closed):
                left = None if ends_at is None else ends_at - time.monotonic()
                if left is not None and left <= 0:
                    return None
                self._changed.wait(left)
            if self._items:
                return self._items.popleft()
            if self._overflowed:
                raise watcher_too_slow(self._limit)
            return None

    def close(self) -> None:
        """End the subscription; a waiting ``get`` returns. May be called more than once."""
        self._owner._drop(self)  # noqa: SLF001  # two halves of one thing

    def __iter__(self) -> Iterator[T]:
        while (item := self.get()) is not None:
            yield item

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _put(self, item: T) -> None:
        """Take an item, or note that it did not fit: from then on there is a gap."""
        if len(self._items) < self._limit and not self._overflowed:
            self._items.append(item)
        else:
            self._overflowed = True
