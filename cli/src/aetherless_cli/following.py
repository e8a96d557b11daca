# SPDX-License-Identifier: Apache-2.0
"""The answers of a stream, read by a thread of their own, so that an interrupt finds no harm to do.

gRPC's streams are written in Python, and a KeyboardInterrupt comes between any two of its steps: it
left channels whose close waits for ever, and locks that are let go of by who does not hold them.
The main thread, to which interrupts come, waits for a queue alone.
"""

from __future__ import annotations

import contextvars
import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aetherless_cli.interruption import held_back

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

#: How many answers are read ahead of who takes them.
AHEAD = 64
ENDS_S = 2.0


@contextmanager
def followed(begin: Callable[[], Any]) -> Iterator[Iterator[Any]]:
    """Give the answers of a stream, and end it when the block ends.

    Args:
        begin: makes the call; what it or the stream raises comes out of the iteration.
    """
    reader = _Reader(begin)
    try:
        yield reader.answers()
    finally:
        reader.close()


def started(read: Callable[[], None], name: str) -> threading.Thread:
    """Start a thread that reads a stream, in the caller's trace."""
    in_this_trace = contextvars.copy_context().run
    thread = threading.Thread(target=in_this_trace, args=(read,), name=name, daemon=True)
    with held_back():  # gRPC and the start of a thread take no interrupt well
        thread.start()
    return thread


class _End:
    """The end of a stream, and what it ended with."""

    def __init__(self, error: BaseException | None) -> None:
        self.error = error


class _Reader:
    def __init__(self, begin: Callable[[], Any]) -> None:
        self._begin = begin
        self._answers: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        for _ in range(AHEAD):
            self._room.put(None)
        self._stream: Any = None
        self._closed = False
        self._thread = started(self._read, "stream")

    def answers(self) -> Iterator[Any]:
        """Yield what the thread reads; raise what the stream ended with."""
        while not isinstance(answer := self._answers.get(), _End):
            yield answer
            self._room.put(None)
        if answer.error is not None:
            raise answer.error

    def close(self) -> None:
        """End the stream and its thread."""
        with held_back():
            self._closed = True
            if self._stream is not None:
                self._stream.cancel()
            self._room.put(None)
            self._thread.join(ENDS_S)

    def _read(self) -> None:
        error = None
        try:
            self._stream = self._begin()
            if self._closed:
                self._stream.cancel()
            for answer in self._stream:
                self._room.get()
                self._answers.put(answer)
        except BaseException as caught:  # noqa: BLE001  # it is raised where the answers are read
            error = caught
        self._answers.put(_End(error))
