# SPDX-License-Identifier: Apache-2.0
"""What is done about edges while nobody asks: bells of edges that nobody reads, and handing over.

The rings' thread calls; the broker's lock is taken for each look.
"""

from __future__ import annotations

import itertools
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import structlog

from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable

    from aetherless_ipc.edgeregion import EdgeRegion
    from aetherless_ipc.ringloop import RingLoop

log = structlog.get_logger()
FIRST_LOOK_S = 0.5
# A stage whose waking failed is woken again while something waits for it.
WAKE_AGAIN_S = 1.0
WAKERS = 8


class EdgeWatch:
    """Wakes stages that something waits for, and hands over what was let go of.

    Args:
        loop: the rings' thread.
        lock: the broker's.
        wake: wakes the instance of a function and returns when it runs.
    """

    def __init__(
        self, loop: RingLoop, lock: threading.RLock, wake: Callable[[str], object]
    ) -> None:
        self._loop = loop
        self._lock = lock
        self._wake = wake
        self._pool = ThreadPoolExecutor(WAKERS, "stage-wake")
        self._waking: dict[str, float] = {}
        self._looks = itertools.count(1)
        self._newest_look = 0
        self._see_to: Callable[[], float] | None = None

    def start(self, see_to: Callable[[], float]) -> None:
        """Begin to look after the edges.

        ``see_to`` is called with the lock held, and says after how many seconds it wants to be
        called again.
        """
        self._see_to = see_to
        self.look_soon(FIRST_LOOK_S)

    def stop(self) -> None:
        """Look no more, and wake nobody."""
        self._see_to = None
        self._pool.shutdown(wait=False, cancel_futures=True)

    def orphaned(self, region: EdgeRegion, function_id: str) -> None:
        """Sleep in the place of a reader that is not there; with the lock held."""
        region.sleep()
        self._loop.add(region.bell, lambda: self._rung(region, function_id))
        if not region.is_empty:
            self.rouse(function_id)

    def adopted(self, region: EdgeRegion) -> None:
        """Leave a region's bell to its reader; with the lock held."""
        self._loop.remove(region.bell)

    def rouse(self, function_id: str) -> None:
        """Wake a function's instance soon, unless somebody is at it."""
        with self._lock:
            now = time.monotonic()
            if self._see_to is None or self._waking.get(function_id, 0.0) > now - WAKE_AGAIN_S:
                return
            self._waking[function_id] = now
        self._pool.submit(self._rouse, function_id)

    def look_soon(self, seconds: float = 0.0) -> None:
        """Look after the edges in so many seconds, and from then on."""
        self._newest_look = number = next(self._looks)
        self._loop.after(seconds, lambda: self._look(number))

    def _rouse(self, function_id: str) -> None:
        try:
            self._wake(function_id)
        except AetherlessError as error:
            log.warning("stage not woken", function=function_id, error=str(error))
        except Exception:
            log.exception("stage not woken", function=function_id)

    def _rung(self, region: EdgeRegion, function_id: str) -> None:
        """Hear the bell of a region that nobody read when it was rung."""
        with self._lock:
            if region.consumer is None and region.hear():
                region.sleep()
                self.rouse(function_id)

    def _look(self, number: int) -> None:
        """Look after all edges."""
        if number != self._newest_look:
            return  # a sooner look took its place
        with self._lock:
            if self._see_to is not None:
                self.look_soon(self._see_to())
