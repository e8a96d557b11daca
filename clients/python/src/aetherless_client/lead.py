# SPDX-License-Identifier: Apache-2.0
"""Who reads: one thread at a time leads, the others sleep until it has something for them.

The leader writes down what a thread waits for, then wakes; a thread that is about to sleep says so,
then looks once more. So no wake is lost.
"""

from __future__ import annotations

import contextlib
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, Protocol, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Lender(Protocol):
    """Who leads, and lends the lead while it has no need of it."""

    def is_lent(self) -> bool:
        """Whether the lead may be taken."""

    def take_lead(self) -> bool:
        """Take the lead from the lender, by ``become_mine``; False when it is not lent."""


class Lead:
    """The right to read, held by one thread at a time; a context manager for who has taken it.

    ``lender`` is asked for it while the lock is not free. ``sleepers`` are those that wait.
    """

    def __init__(self) -> None:
        self.lender: Lender | None = None
        self.sleepers: deque[threading.Lock] = deque()
        self._lock = threading.Lock()
        self._owner = 0

    def take(self) -> bool:
        """Take the lead; False when another thread has it."""
        if not self._lock.acquire(blocking=False):
            lender = self.lender
            return lender is not None and lender.take_lead()
        self.become_mine()
        return True

    def become_mine(self) -> None:
        """Note that the calling thread leads."""
        self._owner = threading.get_ident()

    def is_mine(self) -> bool:
        """Whether the calling thread leads."""
        return self._owner == threading.get_ident() and not self._is_lent()

    def _is_lent(self) -> bool:
        lender = self.lender
        return lender is not None and lender.is_lent()

    def _is_free(self) -> bool:
        return not self._lock.locked() or self._is_lent()

    def wait(self, is_done: Callable[[], bool], until: float) -> None:
        """Sleep until the leader has something, leads no more, or a time of the monotonic clock."""
        sleeper = threading.Lock()
        sleeper.acquire()
        self.sleepers.append(sleeper)
        if not is_done() and not self._is_free():
            left = until - time.monotonic()
            sleeper.acquire(timeout=min(max(left, 0.0), threading.TIMEOUT_MAX))
        with contextlib.suppress(ValueError):
            self.sleepers.remove(sleeper)

    def rouse(self) -> None:
        """Wake all threads that sleep, for each to look whether something is for it."""
        with contextlib.suppress(IndexError):
            while True:
                self.sleepers.popleft().release()

    def hand_on(self) -> None:
        """Wake a thread that may lead, if nobody does. Whoever slept calls it before it leaves."""
        if self.sleepers and self._is_free():
            with contextlib.suppress(IndexError):
                self.sleepers.popleft().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Lead no more."""
        self._owner = 0
        self._lock.release()
        if self.sleepers:
            self.hand_on()
