# SPDX-License-Identifier: Apache-2.0
"""The thread that serves rings while no call's own thread does: doorbells, deadlines, errands."""

from __future__ import annotations

import heapq
import itertools
import os
import select
import threading
import time
import weakref
from collections import deque
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_ipc.calls import Call

log = structlog.get_logger()
FEWEST_TO_SORT_OUT = 1024
LONGEST_WAIT_S = 60.0


class RingLoop:
    """Calls functions: when a descriptor is readable, at a time, soon. Safe from any thread.

    A function that fails is logged, and the others go on. No lock is held during a call.
    """

    def __init__(self) -> None:
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._poll.register(self._wake, select.EPOLLIN)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._errands: deque[Callable[[], None]] = deque()
        self._lock = threading.Lock()
        self._numbers = itertools.count()
        self._times: list[tuple[float, int, Callable[[], None]]] = []
        self._deadlines: list[tuple[float, int, weakref.ref[Call]]] = []
        self._sort_out_at = FEWEST_TO_SORT_OUT
        self._sleeps_until = 0.0
        self._stopping = False
        self._thread = threading.Thread(target=self._run, name="rings", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stopping = True
        self._rouse()
        if self._thread.is_alive():
            self._thread.join()

    def add(self, descriptor: int, callback: Callable[[], None]) -> None:
        """Call a function whenever a descriptor is readable."""
        self._callbacks[descriptor] = callback
        self._poll.register(descriptor, select.EPOLLIN)

    def remove(self, descriptor: int) -> None:
        """Wait on a descriptor no more; before it is closed. One last call may be under way."""
        del self._callbacks[descriptor]
        self._poll.unregister(descriptor)

    def soon(self, callback: Callable[[], None]) -> None:
        """Call a function once, next."""
        self._errands.append(callback)
        self._rouse()

    def after(self, seconds: float, callback: Callable[[], None]) -> None:
        """Call a function once, so many seconds from now."""
        when = time.monotonic() + seconds
        with self._lock:
            heapq.heappush(self._times, (when, next(self._numbers), callback))
        if when < self._sleeps_until:
            self._rouse()

    def watch(self, call: Call) -> None:
        """End a call at its deadline, unless it is over by then; does not keep it."""
        with self._lock:
            if len(self._deadlines) >= self._sort_out_at:
                self._sort_out()
            heapq.heappush(self._deadlines, (call.until, call.id, weakref.ref(call)))
        if call.until < self._sleeps_until:
            self._rouse()

    def _sort_out(self) -> None:
        """Drop the calls that are over, so that no more than twice the open ones are kept."""
        self._deadlines = [entry for entry in self._deadlines if entry[2]() is not None]
        heapq.heapify(self._deadlines)
        self._sort_out_at = max(FEWEST_TO_SORT_OUT, 2 * len(self._deadlines))

    def _rouse(self) -> None:
        """Let the thread look around."""
        os.eventfd_write(self._wake, 1)

    def _run(self) -> None:
        while not self._stopping:
            wait = self._time_to_next()
            for descriptor, _ in self._poll.poll(wait):
                if descriptor == self._wake:
                    os.eventfd_read(self._wake)
                else:
                    self._attempt(self._callbacks.get(descriptor))
            self._sleeps_until = 0.0
            for _ in range(len(self._errands)):
                self._attempt(self._errands.popleft())
            self._do_due()
        self._poll.close()
        os.close(self._wake)

    def _time_to_next(self) -> float:
        """Say until when the thread sleeps; what comes earlier rouses it from then on."""
        with self._lock:
            nexts = [heap[0][0] for heap in (self._times, self._deadlines) if heap]
            self._sleeps_until = min([time.monotonic() + LONGEST_WAIT_S, *nexts])
        return 0.0 if self._errands else max(0.0, self._sleeps_until - time.monotonic())

    def _do_due(self) -> None:
        """Do what has its time now."""
        now = time.monotonic()
        while True:
            with self._lock:
                if self._times and self._times[0][0] <= now:
                    callback: Callable[[], object] = heapq.heappop(self._times)[2]
                elif self._deadlines and self._deadlines[0][0] <= now:
                    call = heapq.heappop(self._deadlines)[2]()
                    callback = _nothing if call is None else call.expire
                else:
                    return
            self._attempt(callback)

    @staticmethod
    def _attempt(callback: Callable[[], object] | None) -> None:
        """Call a function that may fail."""
        try:
            if callback is not None:
                callback()
        except Exception:
            log.exception("a ring's errand failed")


def _nothing() -> None:
    """Do nothing: the call has ended."""
