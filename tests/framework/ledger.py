# SPDX-License-Identifier: Apache-2.0
"""Numbered requests: which were answered, and how often each was worked on.

The program writes each request's number to its output before it answers, and the output outlives
its processes. So a number that is answered and stands there once was neither lost nor doubled.
"""

from __future__ import annotations

import itertools
import random
import threading
import time
from collections import Counter
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from .clients import KeptConnection, call

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ANSWER_TIMEOUT_S = 30.0
# A kept connection in steady use stands against an eviction, so its client hangs up at times.
KEPT_REQUESTS = 60
LONGEST_BREAK_S = 6.0
READ_EVERY_S = 0.2
LATEST_S = 1.0


@dataclass
class Ledger:
    """What became of the requests.

    Arguments:
        answered: The numbers that were answered.
        failures: What went wrong with fresh connections, which must never fail.
        broken: How often a kept connection was ended under a client; the request was asked again.
    """

    answered: set[int] = field(default_factory=set)
    failures: list[str] = field(default_factory=list)
    broken: int = 0


class Clients:
    """Threads that ask at a steady rate, some on connections that they keep.

    Arguments:
        port: The port to call.
        rate: Requests a second, of all together.
        fresh: How many threads take a new connection for each request.
        kept: How many keep theirs.
        breaks: Whether those hang up now and then, for a while.
    """

    def __init__(
        self, port: int, rate: float, *, fresh: int = 6, kept: int = 2, breaks: bool = False
    ) -> None:
        self.port = port
        self._breaks = breaks
        self.ledger = Ledger()
        self._period = (fresh + kept) / rate
        self._numbers = itertools.count(1)
        self._ending = threading.Event()
        self._lock = threading.Lock()
        self._chance = random.Random()
        self.threads = [threading.Thread(target=self._ask_fresh, daemon=True) for _ in range(fresh)]
        self.threads += [threading.Thread(target=self._ask_kept, daemon=True) for _ in range(kept)]

    def __enter__(self) -> Self:
        """Begin."""
        for thread in self.threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """End, after the requests that are on their way."""
        self._ending.set()
        for thread in self.threads:
            thread.join(2 * ANSWER_TIMEOUT_S)

    def _turns(self) -> Iterator[int]:
        """Return numbers, each at its time, until told to end.

        A turn that comes late is made up for, unless it is later than LATEST_S.
        """
        due = time.monotonic()
        while True:
            due = max(due + self._period, time.monotonic() - LATEST_S)
            if self._ending.wait(max(due - time.monotonic(), 0)):
                return
            with self._lock:
                number = next(self._numbers)
            yield number

    def _ask_fresh(self) -> None:
        """Ask, each time on a connection of its own."""
        for number in self._turns():
            self._ask_once(number)

    def _ask_once(self, number: int) -> None:
        answer = call(self.port, f"/{number}", timeout_s=ANSWER_TIMEOUT_S)
        with self._lock:
            if answer.ok and answer.body == str(number).encode():
                self.ledger.answered.add(number)
            else:
                self.ledger.failures.append(f"{number}: {answer.error or answer.status}")

    def _ask_kept(self) -> None:
        """Ask on one connection until it is ended; ask again what was not answered on it."""
        connection: KeptConnection | None = None
        for number in self._turns():
            if self._breaks and connection and self._chance.random() < 1 / KEPT_REQUESTS:
                connection.close()
                connection = None
                self._ending.wait(self._chance.uniform(0, LONGEST_BREAK_S))
            try:
                connection = connection or KeptConnection(self.port, timeout_s=ANSWER_TIMEOUT_S)
                answer = connection.request(f"/{number}")
            except OSError:
                with self._lock:
                    self.ledger.broken += 1
                if connection:
                    connection.close()
                connection = None
                self._ask_once(number)
                continue
            with self._lock:
                self.ledger.answered.add(int(answer.body))
        if connection:
            connection.close()


class Written:
    """Reads the numbers that a program wrote, while its output is cut and rotated.

    Arguments:
        path: The file of its output.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.counts: Counter[int] = Counter()
        self._place = 0
        self._rest = b""
        self._ending = threading.Event()
        self._thread = threading.Thread(target=self._follow, daemon=True)

    def __enter__(self) -> Self:
        """Begin to read."""
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        """Read what is left."""
        self._ending.set()
        self._thread.join(10)
        self._read()

    def _follow(self) -> None:
        while not self._ending.wait(READ_EVERY_S):
            self._read()

    def _read(self) -> None:
        with self.path.open("rb") as output:
            output.seek(0, 2)
            if output.tell() < self._place:  # it was rotated: the whole file is new
                self._place = 0
            output.seek(self._place)
            data = self._rest + output.read()
            self._place = output.tell()
        lines = data.split(b"\n")
        self._rest = lines.pop()
        self.counts.update(int(line) for line in lines if line.isdigit())


def assert_once_each(ledger: Ledger, written: Written, least: int) -> str:
    """Check that every request was answered and worked on once; return a summary."""
    doubled = [number for number, count in written.counts.items() if count > 1]
    unknown = ledger.answered - written.counts.keys()
    summary = (
        f"{len(ledger.answered)} answered, {ledger.broken} kept connections ended, "
        f"{len(ledger.failures)} failed, {len(doubled)} doubled"
    )
    assert not ledger.failures, f"{summary}: {ledger.failures[:10]}"
    assert not doubled, f"{summary}: {sorted(doubled)[:10]}"
    assert not unknown, f"{summary}; answered but not written: {sorted(unknown)[:10]}"
    assert len(ledger.answered) >= least, summary
    return summary


def rate_of(ledger: Ledger, began: float) -> float:
    """Return the answers a second since a time of the monotonic clock."""
    return len(ledger.answered) / (time.monotonic() - began)
