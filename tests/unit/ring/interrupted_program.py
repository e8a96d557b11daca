# SPDX-License-Identifier: Apache-2.0
"""A thread that waits at an end; a signal's handler has another one wait there as well."""

from __future__ import annotations

import mmap
import signal
import threading
import time
from typing import Any

from aetherless_ring import _native
from aetherless_ring.layout import SMALLEST_RING, Direction, Layout

SPIN_S = 1.0
SIGNAL_AFTER_S = 0.05
LOOKS = 50


def main() -> None:
    """Wait in both threads, to the end of each."""
    memory = mmap.mmap(-1, Layout(SMALLEST_RING).region_bytes)
    end = _native.Consumer(memory, Direction.TO_PEER, SMALLEST_RING)
    other = threading.Thread(target=end.wait, args=(SPIN_S, SPIN_S))

    def let_in(*_received: Any) -> None:
        other.start()
        for _ in range(LOOKS):
            time.sleep(0.001)  # each lets go of the interpreter's lock, for the other to begin

    signal.signal(signal.SIGALRM, let_in)
    signal.setitimer(signal.ITIMER_REAL, SIGNAL_AFTER_S)
    assert end.wait(2 * SPIN_S, 2 * SPIN_S) is False
    other.join()


if __name__ == "__main__":
    main()
