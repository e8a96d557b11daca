# SPDX-License-Identifier: Apache-2.0
"""Since when replaced instances are waited for, and which are waited for no more."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable


class Drains:
    """The waits of all functions. An instance is waited for by one thread at a time.

    Args:
        clock: the time in seconds of any clock that does not jump.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._began: dict[str, float] = {}
        self._given_up: set[str] = set()

    @property
    def given_up(self) -> frozenset[str]:
        """The instances that are waited for no more."""
        return frozenset(self._given_up)

    def overdue(self, instance: str, limit_s: float) -> bool:
        """Tell whether an instance was waited for ``limit_s`` seconds, from the first time on."""
        return self._clock() - self._began.setdefault(instance, self._clock()) >= limit_s

    def give_up(self, instance: str) -> None:
        """Note that an instance is waited for no more."""
        self._given_up.add(instance)

    def forget(self, instance: str) -> None:
        """Note that an instance is gone, or serves again."""
        self._began.pop(instance, None)
        self._given_up.discard(instance)
