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

    def begin(self, instance: str) -> None:
        """Note that a wait begins, unless it has begun."""
        self._began.setdefault(instance, self._clock())

    def go_on(self, instance: str, limit_s: float) -> bool:
        """Tell whether to wait longer; after ``limit_s`` seconds the instance is given up."""
        if self._clock() - self._began[instance] < limit_s:
            return True
        self._given_up.add(instance)
        return False

    def forget(self, instance: str) -> None:
        """Note that an instance is gone, or serves again."""
        self._began.pop(instance, None)
        self._given_up.discard(instance)
