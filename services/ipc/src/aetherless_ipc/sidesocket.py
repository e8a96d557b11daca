# SPDX-License-Identifier: Apache-2.0
"""Side sockets: where a peer connects to be handed a channel's descriptors.

One thread waits on all of them. Sockets are SOCK_SEQPACKET and non-blocking; README.md has the
protocol.
"""

from __future__ import annotations

import hashlib
import os
import select
import socket
import threading
from typing import TYPE_CHECKING

import structlog

from aetherless_common.settings import LONGEST_SOCKET_PATH

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger()
BACKLOG = 16
# Anyone may connect who can see the socket: its folder is 0700, and peers are known by their group.
SOCKET_MODE = 0o666
LONGEST_MESSAGE = 512


def socket_path(folder: Path, channel_id: str) -> Path:
    """Return a channel's side socket: named by its id, or by a hash where that is too long."""
    path = folder / f"{channel_id}.sock"
    if len(os.fsencode(path)) <= LONGEST_SOCKET_PATH:
        return path
    return folder / f"{hashlib.sha256(channel_id.encode()).hexdigest()[:16]}.sock"


def listen(path: Path) -> socket.socket:
    """Return a listening side socket; one that was left behind by a dead service is replaced.

    Raises:
        OSError: it could not be bound.
    """
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET | socket.SOCK_NONBLOCK)
    try:
        path.unlink(missing_ok=True)
        listener.bind(str(path))
        path.chmod(SOCKET_MODE)
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


class SocketLoop:
    """Calls a function whenever a socket is readable or hung up, from one thread of its own.

    ``lock`` is held during each call; whoever adds and removes sockets holds it too, so a function
    is never called for a socket that was removed.
    """

    def __init__(self, lock: threading.RLock) -> None:
        self._lock = lock
        self._poll = select.epoll()
        self._wake = os.eventfd(0, os.EFD_CLOEXEC)
        self._poll.register(self._wake, select.EPOLLIN)
        self._callbacks: dict[int, Callable[[], None]] = {}
        self._thread = threading.Thread(target=self._run, name="side-sockets", daemon=True)

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def add(self, waited: socket.socket, callback: Callable[[], None]) -> None:
        """Wait on a socket."""
        self._callbacks[waited.fileno()] = callback
        self._poll.register(waited, select.EPOLLIN | select.EPOLLRDHUP)

    def remove(self, waited: socket.socket) -> None:
        """Wait on a socket no more; before it is closed."""
        del self._callbacks[waited.fileno()]
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
            for descriptor, _ in self._poll.poll():
                if descriptor == self._wake:
                    return
                # A number that was closed and used again since the poll: the callback finds
                # nothing to accept or to receive, and returns.
                with self._lock:
                    callback = self._callbacks.get(descriptor)
                    if callback:
                        callback()
