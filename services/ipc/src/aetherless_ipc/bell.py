# SPDX-License-Identifier: Apache-2.0
"""What an end of an edge is woken by: a pipe, of which nobody shares what another writes by.

Both ends of an edge are functions that need not trust each other. An eventfd is one open file
description for all who have it: one end could take O_NONBLOCK away and fill the counter, and the
other would wait in its write. A pipe can be opened anew: who rings has a description of its own,
whose flags the other end does not reach, and a pipe that somebody filled refuses at once.
"""

from __future__ import annotations

import os
from contextlib import ExitStack, suppress

RING = (1).to_bytes(8, "little")
_FLAGS = os.O_CLOEXEC | os.O_NONBLOCK
_MOST = 1 << 12


def take_rings(wake: int) -> bool:
    """Take what a pipe or an eventfd was rung; False when it was not.

    A peer shares the descriptor's flags, O_NONBLOCK too: so the read says that it may not wait.
    """
    with suppress(BlockingIOError):
        return bool(os.preadv(wake, [bytearray(_MOST)], -1, os.RWF_NOWAIT))
    return False


class Bell:
    """The wake of one end of an edge.

    Attributes:
        ear: what that end, or whoever stands in for it, hears by.
        hammer: what the other end rings by. It reads as well, though nobody does: so the pipe has
            a reader as long as it has a writer, and a ring that comes too late is no SIGPIPE.

    Raises:
        OSError: the kernel refused a descriptor.
    """

    def __init__(self) -> None:
        with ExitStack() as made:
            self.ear, self._own = os.pipe2(_FLAGS)
            made.callback(os.close, self.ear)
            made.callback(os.close, self._own)
            self.hammer = os.open(f"/proc/self/fd/{self._own}", os.O_RDWR | _FLAGS)
            made.callback(os.close, self.hammer)
            self._holds = made.pop_all()

    def ring(self) -> None:
        """Ring it; one that is full has been rung."""
        with suppress(BlockingIOError):
            os.write(self._own, RING)

    def hear(self) -> bool:
        """Take note of a ring; False when there was none."""
        return take_rings(self.ear)

    def close(self) -> None:
        """Let go of it, once."""
        self._holds.close()
