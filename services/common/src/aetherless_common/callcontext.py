# SPDX-License-Identifier: Apache-2.0
"""What a call hands on to the calls that it makes: its deadline; ``tracing`` has its trace."""

from __future__ import annotations

import time
from contextvars import ContextVar

# Kept back for the answer's way home, in seconds.
MARGIN = 0.05

_ends_at: ContextVar[float | None] = ContextVar("aetherless_deadline", default=None)


def begin(seconds: float | None) -> None:
    """Note, for the handler that this thread is about to run, its time left."""
    _ends_at.set(None if seconds is None else time.monotonic() + seconds)


def remaining() -> float | None:
    """Return the seconds left to the call being served here; None without a deadline."""
    ends_at = _ends_at.get()
    return None if ends_at is None else max(0.0, ends_at - time.monotonic())


def for_downstream() -> float | None:
    """Return the seconds that a call made on behalf of this one may take; None without limit."""
    left = remaining()
    return None if left is None else max(0.0, left - MARGIN)
