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
from typing import TYPE_CHECKING, Self

if TYPE_CHECKING:
    from collections.abc import Callable


class Lead:
    """The right to read, held by one thread at a time; a context manager for who has taken it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._owner = 0
        self._sleepers: deque[threading.Lock] = deque()

    def take(self) -> bool:
        """Take the lead; False when another thread has it."""
        if not self._lock.acquire(blocking=False):
            return False
        self._owner = threading.get_ident()
        return True

    def is_mine(self) -> bool:
        """Whether the calling thread leads."""
        return self._owner == threading.get_ident()

    def wait(self, is_done: Callable[[], bool], until: float) -> None:
        """Sleep until the leader has something, leads no more, or a time of the monotonic clock."""
        sleeper = threading.Lock()
        sleeper.acquire()
        self._sleepers.append(sleeper)
        if not is_done() and self._lock.locked():
            left = until - time.monotonic()
            sleeper.acquire(timeout=min(max(left, 0.0), threading.TIMEOUT_MAX))
        with contextlib.suppress(ValueError):
            self._sleepers.remove(sleeper)

    def rouse(self) -> None:
        """Wake all threads that sleep, for each to look whether something is for it."""
        with contextlib.suppress(IndexError):
            while True:
                self._sleepers.popleft().release()

    def hand_on(self) -> None:
        """Wake a thread that may lead, if nobody does. Whoever slept calls it before it leaves."""
        if self._sleepers and not self._lock.locked():
            with contextlib.suppress(IndexError):
                self._sleepers.popleft().release()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.leave()

    def leave(self) -> None:
        """Lead no more."""
        self._owner = 0
        self._lock.release()
        if self._sleepers:
            self.hand_on()
