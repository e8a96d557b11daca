# SPDX-License-Identifier: Apache-2.0
"""Side sockets: where a peer connects to be handed a channel's descriptors.

One thread waits on all of them. Sockets are SOCK_SEQPACKET and non-blocking; README.md has the
protocol.
"""

from __future__ import annotations

import os
import select
import socket
import threading
import time
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

log = structlog.get_logger()
EVENTS = select.EPOLLIN | select.EPOLLRDHUP
SOCKET_NAME = "channel.sock"
_UNFINISHED = ".channel.sock"
BACKLOG = 16
# Anyone may connect who can see the socket: peers are known by their control group.
SOCKET_MODE = 0o666
LONGEST_MESSAGE = 512
# More connections than a restart, a restore or a crash brings about.
MOST_IN_A_SECOND = 50
REST_S = 0.1


def listen(folder: Path) -> socket.socket:
    """Return a listening side socket in a folder; one that a dead service left is replaced.

    It gets its name when it may be connected to: a peer may try at any moment, and take a socket
    that refuses it for the last word.

    A sandbox sees the folder, so its entries are never followed: SAFETY: the socket is made and
    given its mode by way of a descriptor of the folder itself, and of no symbolic link.

    Raises:
        OSError: it could not be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        with _opened(folder) as opened:
            _unlink(_UNFINISHED, opened)
            # the short name also fits where the folder's own path would be too long for a socket
            listener.bind(f"/proc/self/fd/{opened}/{_UNFINISHED}")
            made = os.open(_UNFINISHED, os.O_PATH | os.O_NOFOLLOW, dir_fd=opened)
            try:
                os.chmod(f"/proc/self/fd/{made}", SOCKET_MODE)  # noqa: PTH101  # by descriptor
            finally:
                os.close(made)
            listener.listen(BACKLOG)
            os.rename(_UNFINISHED, SOCKET_NAME, src_dir_fd=opened, dst_dir_fd=opened)
    except OSError:
        listener.close()
        raise
    return listener


def remove(folder: Path) -> None:
    """Remove the side socket from a folder, if it and the folder are there."""
    with suppress(FileNotFoundError), _opened(folder) as opened:
        _unlink(_UNFINISHED, opened)
        _unlink(SOCKET_NAME, opened)


def _unlink(name: str, folder: int) -> None:
    """Remove an entry from a folder, if it is there."""
    with suppress(FileNotFoundError):
        os.unlink(name, dir_fd=folder)


@contextmanager
def _opened(folder: Path) -> Iterator[int]:
    """Open a folder that is no symbolic link."""
    opened = os.open(folder, os.O_PATH | os.O_DIRECTORY | os.O_NOFOLLOW)
    try:
        yield opened
    finally:
        os.close(opened)


class Pace:
    """How often something came within the second that runs."""

    def __init__(self) -> None:
        self._second = 0
        self._count = 0

    def is_too_fast(self) -> bool:
        """Count one more; tell whether it is one too many."""
        if (second := int(time.monotonic())) != self._second:
            self._second, self._count = second, 0
        self._count += 1
        return self._count > MOST_IN_A_SECOND


class SocketLoop:
    """Calls a function whenever a socket is readable or hung up, from one thread of its own.

    A socket may have a pace: when that is too fast, it is left alone for a while after each call,
    so that nobody keeps the thread busy who connects again and again. ``lock`` is held during each
    call; whoever adds and removes sockets holds it too, so a function is never called for a socket
    that was removed.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._paces: dict[int, Pace] = {}
        self._resting: dict[int, float] = {}  # until when
        self._thread = threading.Thread(target=self._run, name="side-sockets", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(
        self, waited: socket.socket, callback: Callable[[], None], pace: Pace | None = None
    ) -> None:
        """Wait on a socket."""
        self._callbacks[waited.fileno()] = callback
        if pace is not None:
            self._paces[waited.fileno()] = pace
        self._poll.register(waited, EVENTS)

    def remove(self, waited: socket.socket) -> None:
        """Wait on a socket no more; before it is closed."""
        del self._callbacks[waited.fileno()]
        self._paces.pop(waited.fileno(), None)
        self._resting.pop(waited.fileno(), None)
        self._poll.unregister(waited)

    def stop(self) -> None:
        """End the thread; without the lock held."""
        os.eventfd_write(self._wake, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._poll.close()
        os.close(self._wake)

    def _run(self) -> None:
        while True:
            for descriptor, _ in self._poll.poll(REST_S if self._resting else None):
                if descriptor == self._wake:
                    return
                # A number that was closed and used again since the poll: the callback finds
                # nothing to accept or to receive, and returns.
                with self._lock:
                    self._attempt(self._callbacks.get(descriptor))
                    self._rest(descriptor)
            self._wake_rested()

    def _rest(self, descriptor: int) -> None:
        """Leave a socket alone for a while if its pace is too fast."""
        pace = self._paces.get(descriptor)
        if pace is not None and pace.is_too_fast():
            self._resting[descriptor] = time.monotonic() + REST_S
            self._poll.modify(descriptor, 0)

    def _wake_rested(self) -> None:
        """Wait on the sockets again that have rested."""
        if not self._resting:
            return
        with self._lock:
            now = time.monotonic()
            for descriptor in [each for each, until in self._resting.items() if until <= now]:
                del self._resting[descriptor]
                self._poll.modify(descriptor, EVENTS)

    @staticmethod
    def _attempt(callback: Callable[[], None] | None) -> None:
        """Call a function; one that fails does not end the thread that serves all channels."""
        try:
            if callback is not None:
                callback()
        except Exception:
            log.exception("a side socket's errand failed")
