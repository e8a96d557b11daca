# SPDX-License-Identifier: Apache-2.0
"""Clients that call all the while, so that a test can say that nobody noticed."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Self

from .clients import Answer, burst, call
from .processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable


class Traffic:
    """Calls a port again and again, each call on a new connection, while its block runs.

    Arguments:
        port: The port to call.
        path: The path to ask for.
    """

    def __init__(self, port: int, path: str = "/") -> None:
        self.port = port
        self.path = path
        self.answers: list[Answer] = []
        self.ending = threading.Event()
        self.thread = threading.Thread(target=self.run, name="traffic", daemon=True)

    def run(self) -> None:
        """Call until told to end."""
        while not self.ending.is_set():
            self.answers.append(call(self.port, self.path, timeout_s=20))

    def __enter__(self) -> Self:
        """Begin; return once the first answer came."""
        self.thread.start()
        wait_until(lambda: self.answers, "the first answer")
        return self

    def __exit__(self, *_: object) -> None:
        """End, after the call that is in progress."""
        self.ending.set()
        self.thread.join(30)

    def go_on(self, calls: int = 20) -> None:
        """Return after so many further answers."""
        target = len(self.answers) + calls
        wait_until(lambda: len(self.answers) >= target, f"{calls} more answers", 60)

    def failures(self) -> list[Answer]:
        """Return the answers that are not 200."""
        return [answer for answer in self.answers if not answer.ok]


class Background:
    """A burst of calls that goes on while the test does something else.

    Arguments:
        port: The port to call.
        count: How many clients call at the same time.
        timeout_s: Bounds each call.
    """

    def __init__(self, port: int, count: int, timeout_s: float = 30.0) -> None:
        self.answers: list[Answer] = []
        self.work: Callable[[], list[Answer]] = lambda: burst(port, count, timeout_s=timeout_s)
        self.thread = threading.Thread(target=self.run, name="burst", daemon=True)
        self.thread.start()

    def run(self) -> None:
        """Make the calls."""
        self.answers = self.work()

    def wait(self, timeout_s: float = 60.0) -> list[Answer]:
        """Return every answer once the last one came."""
        self.thread.join(timeout_s)
        assert not self.thread.is_alive(), "the calls did not end"
        return self.answers
