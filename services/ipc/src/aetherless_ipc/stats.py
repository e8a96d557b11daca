# SPDX-License-Identifier: Apache-2.0
"""What went through a channel, counted."""

from __future__ import annotations

import threading
from collections import Counter
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from aetherless_ipc.calls import Call


class Stats:
    """Counts by the names of the contract's ChannelStats; safe to use from any thread."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._counts: Counter[str] = Counter()

    def count(self, name: str, by: int = 1) -> None:
        """Add to one of the counts."""
        with self._lock:
            self._counts[name] += by

    def begun(self, call: Call) -> None:
        """Count a call that was taken on."""
        call.stats = self
        with self._lock:
            self._counts["calls"] += 1
            self._counts["request_bytes"] += len(call.data)

    def ended(self, call: Call) -> None:
        """Count the end of a call."""
        error, counts = call.error, self._counts
        with self._lock:
            if call.is_cancelled:
                counts["cancelled"] += 1
            elif error is None:
                counts["succeeded"] += 1
                counts["response_bytes"] += len(call.result)
            else:
                counts["failed"] += 1
                counts["timed_out"] += error.reason == "INVOCATION_TIMEOUT"
            counts["redelivered"] += max(0, call.attempts - 1)

    def snapshot(self) -> dict[str, int]:
        """Return the counts by name."""
        with self._lock:
            return dict(self._counts)
