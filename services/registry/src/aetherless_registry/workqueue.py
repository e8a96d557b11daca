# SPDX-License-Identifier: Apache-2.0
"""Keys to be worked on: each once at a time, by whoever is free, now or later."""

from __future__ import annotations

import threading
import time


class WorkQueue:
    """A set of keys with due times.

    A key that is being worked on is not handed out again before ``done``; when it was added in
    between, it is handed out once more after that.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._due: dict[str, float] = {}
        self._active: set[str] = set()
        self._closed = False

    def add(self, key: str, delay: float = 0.0) -> None:
        """Add a key, due in ``delay`` seconds; one that is due earlier stays so."""
        due = time.monotonic() + delay
        with self._changed:
            self._due[key] = min(due, self._due.get(key, due))
            self._changed.notify_all()

    def get(self) -> str | None:
        """Wait for a key that is due, and return it; None when the queue is closed."""
        with self._changed:
            while not self._closed:
                ready = [(due, key) for key, due in self._due.items() if key not in self._active]
                due, key = min(ready, default=(None, ""))
                left = None if due is None else due - time.monotonic()
                if left is not None and left <= 0:
                    del self._due[key]
                    self._active.add(key)
                    return key
                self._changed.wait(left)
            return None

    def done(self, key: str) -> None:
        """Say that a key is not worked on any more."""
        with self._changed:
            self._active.discard(key)
            self._changed.notify_all()

    def close(self) -> None:
        """Hand out no more keys; those who wait for one are told."""
        with self._changed:
            self._closed = True
            self._changed.notify_all()
