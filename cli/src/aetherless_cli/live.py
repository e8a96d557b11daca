# SPDX-License-Identifier: Apache-2.0
"""The registry's stream of changes, as a queue that survives the registry's restarts."""

from __future__ import annotations

import queue
import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli.following import ENDS_S, started
from aetherless_cli.interruption import held_back
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.client import Mesh

RETRY_PAUSE = 0.2  # seconds


class Changes:
    """Reads WatchFunctions in a thread; ``next`` hands out one answer or error at a time."""

    def __init__(self, mesh: Mesh) -> None:
        self._mesh = mesh
        self._queue: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self._ended = threading.Event()
        self._stream: Any = None
        self._thread = started(self._read, "changes")

    def next(self, timeout: float) -> Any:
        """Return the next WatchFunctionsResponse or AetherlessError; None after ``timeout``."""
        try:
            return self._queue.get(timeout=timeout)
        except queue.Empty:
            return None

    def close(self) -> None:
        """End the stream and its thread."""
        with held_back():
            self._ended.set()
            if self._stream is not None:
                self._stream.cancel()
            self._thread.join(ENDS_S)

    def _read(self) -> None:
        while not self._ended.is_set():
            try:
                request = messages.WatchFunctionsRequest(start_revision=0, progress_notify=True)
                self._stream = self._mesh.registry.WatchFunctions(request)
                for response in self._stream:
                    self._queue.put(response)
            except AetherlessError as error:
                self._queue.put(error)
            self._ended.wait(RETRY_PAUSE)


@contextmanager
def changes(mesh: Mesh) -> Iterator[Changes]:
    """Give the stream of changes, the present state first."""
    stream = Changes(mesh)
    try:
        yield stream
    finally:
        stream.close()
