# SPDX-License-Identifier: Apache-2.0
"""Drives the other services to what is desired: which function is worked on, when and by whom.

A few threads take functions from a queue, each function by one thread at a time; ``advance`` has
the steps. Whoever dies here is replaced by the next look.
"""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING

import structlog

from aetherless_registry.advance import FIRST_RETRY_S, Advancer, RetryLaterError
from aetherless_registry.workqueue import WorkQueue

if TYPE_CHECKING:
    from aetherless_registry.catalog import Catalog
    from aetherless_registry.courses import Courses
    from aetherless_registry.events import EventLog
    from aetherless_registry.peers import Peers
    from aetherless_registry.view import View

log = structlog.get_logger()
WORKERS = 8
RESYNC_PERIOD_S = 30.0
LAST_RETRY_S = 1.0
JOIN_S = 3.0
# The key of the look at everything; no function has an empty id.
EVERYTHING = ""


class Reconciler:
    """Makes what is desired be.

    Args:
        catalog: what is desired.
        peers: the services.
        view: shown the addresses that were observed.
        events: told what users should know of that no change of a function says.
        courses: what is done is recorded in them.
    """

    def __init__(
        self, catalog: Catalog, peers: Peers, view: View, events: EventLog, courses: Courses
    ) -> None:
        self._catalog = catalog
        self._advancer = Advancer(
            catalog, peers, view, events, courses, self.enqueue, self._progressed
        )
        self._queue = WorkQueue()
        self._stopping = threading.Event()
        self._adopted = False
        self._at_start: frozenset[str] = frozenset()
        # What somebody else is at work on; see ``lend``.
        self._lent: set[str] = set()
        # Failures in a row of each key.
        self._failures: dict[str, int] = {}
        self._threads = [
            threading.Thread(target=self._work, name=f"reconcile-{n}", daemon=True)
            for n in range(WORKERS)
        ]

    def start(self) -> None:
        """Begin: first a look at everything, so that nothing older than the store is taken over."""
        self._at_start = frozenset(record.function_id for record in self._catalog.records()[0])
        self._queue.add(EVERYTHING)
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the threads; steps under way are done by whoever comes next."""
        self._stopping.set()
        self._queue.close()
        self._advancer.stop()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)

    def declared(self, function_id: str) -> None:
        """Take note that a function was declared anew or wished away."""
        self._advancer.interrupt(function_id)
        self.enqueue(function_id)

    def enqueue(self, function_id: str) -> None:
        """Look at a function soon."""
        if function_id:
            self._queue.add(function_id)

    def lend(self, function_id: str) -> None:
        """Leave a function that nobody declares to the caller, until ``take_back``."""
        self._lent.add(function_id)

    def take_back(self, function_id: str) -> None:
        """Have a lent function be as it is declared: gone."""
        self._lent.discard(function_id)
        self.enqueue(function_id)

    def clear(self, function_id: str) -> None:
        """Remove now what is there of a lent function.

        Raises:
            RetryLaterError: a service does not answer, or refuses.
        """
        self._advancer.clear(function_id)

    def resync(self) -> None:
        """Look at everything soon: a service came back."""
        self._queue.add(EVERYTHING)

    def _work(self) -> None:
        """Take keys until the queue is closed."""
        while (key := self._queue.get()) is not None:
            try:
                self._attend(key)
            finally:
                self._queue.done(key)

    def _attend(self, key: str) -> None:
        """Work on one key; come back to it later when that could not be finished."""
        try:
            if key == EVERYTHING:
                self._look_at_everything()
            elif key in self._lent:
                return
            elif self._adopted:
                self._advancer.advance(key)
            else:
                self._queue.add(key, FIRST_RETRY_S)
                return
        except RetryLaterError as error:
            delay = self._backoff(key) if error.delay is None else error.delay
            log.info("retried", function=key, cause=str(error), delay_s=delay)
            self._queue.add(key, delay)
        except Exception:
            if self._stopping.is_set():
                return  # the channels and the store are being closed under us
            log.exception("failed", function=key)
            self._queue.add(key, self._backoff(key))
        else:
            self._progressed(key)

    def _progressed(self, key: str) -> None:
        """Begin to count failures anew."""
        self._failures.pop(key, None)

    def _backoff(self, key: str) -> float:
        """Return how long to wait after one more failure in a row."""
        count = self._failures[key] = self._failures.get(key, 0) + 1
        return min(FIRST_RETRY_S * 2.0 ** min(count - 1, 10), LAST_RETRY_S)

    # Everything

    def _look_at_everything(self) -> None:
        """Queue every function, and what is there of functions that nobody declares."""
        world = self._advancer.observe(EVERYTHING)
        if not self._adopted:
            # What is there now was made by a registry before this one, so only what was stored
            # when this one started can explain it; a function declared since can't.
            for function_id in world.owners() - self._at_start - self._lent:
                self._advancer.remove_stranger(function_id)
            self._adopted = True
        declared = {record.function_id for record in self._catalog.records()[0]}
        for function_id in declared | world.owners():
            self._queue.add(function_id)
        self._queue.add(EVERYTHING, RESYNC_PERIOD_S)
