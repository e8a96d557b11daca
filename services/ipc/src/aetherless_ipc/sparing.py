# SPDX-License-Identifier: Apache-2.0
"""Log lines that peers can bring about as often as they like: some of them each second."""

from __future__ import annotations

import threading
import time
from collections import Counter

import structlog

MOST_IN_A_SECOND = 20


class SparingLog:
    """A log that leaves lines out; safe to use from any thread.

    Of the lines with one event about one instance a few are written each second. How many were
    left out is said with the next line that is written.
    """

    def __init__(self) -> None:
        self._log = structlog.get_logger()
        self._lock = threading.Lock()
        self._second = 0
        self._counts: Counter[tuple[str, str]] = Counter()
        self._left_out = 0

    def info(self, event: str, *, instance: str, **fields: object) -> None:
        """Write a line about an instance, unless it is one too many."""
        self._write("info", event, instance, fields)

    def warning(self, event: str, *, instance: str, **fields: object) -> None:
        """Write a warning about an instance, unless it is one too many."""
        self._write("warning", event, instance, fields)

    def error(self, event: str, *, instance: str, **fields: object) -> None:
        """Write an error about an instance, unless it is one too many."""
        self._write("error", event, instance, fields)

    def exception(self, event: str, *, instance: str, **fields: object) -> None:
        """Write an error with the exception that is handled, unless it is one too many."""
        self._write("exception", event, instance, fields)

    def _write(self, level: str, event: str, instance: str, fields: dict[str, object]) -> None:
        with self._lock:
            if (second := int(time.monotonic())) != self._second:
                self._second = second
                self._counts.clear()
            self._counts[event, instance] += 1
            if self._counts[event, instance] > MOST_IN_A_SECOND:
                self._left_out += 1
                return
            left_out, self._left_out = self._left_out, 0
        if left_out:
            fields["left_out_before"] = left_out
        getattr(self._log, level)(event, instance=instance, **fields)


#: The service's, for all that peers bring about.
peer_log = SparingLog()
