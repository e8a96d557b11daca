# SPDX-License-Identifier: Apache-2.0
"""The clients of this process, one for each side socket, and the call that finds its own."""

from __future__ import annotations

import os
import threading
from typing import TYPE_CHECKING

from aetherless_client.attachment import side_socket
from aetherless_client.client import Client

if TYPE_CHECKING:
    from _typeshed import ReadableBuffer as Buffer

_clients: dict[str, Client] = {}
_clients_lock = threading.Lock()


def client_of(path: str | os.PathLike[str] | None) -> Client:
    """Return the process's client of a side socket.

    Raises:
        NoChannelError: no path is given and the environment names none.
    """
    where = side_socket(path)
    with _clients_lock:
        client = _clients.get(where)
        if client is None or client.failure is not None:
            client = _clients[where] = Client(where)
        return client


def call(
    function: str,
    data: Buffer = b"",
    *,
    method: str = "",
    timeout: float | None = None,
    path: str | os.PathLike[str] | None = None,
) -> bytes:
    """Call another function by its id and return its result. From any thread, many at once.

    Args:
        function: its id; this function's ``may_call`` must name it. ``id/method`` as well.
        data: what its handler is given.
        method: the handler's method.
        timeout: seconds; inside a handler at most what its own request has left. None outside of
            one leaves it to the service.
        path: the side socket; by default what AETHER_CHANNEL names.

    Raises:
        CallError: one of its kinds, by how the call ended.
        NoChannelError, AttachRefusedError, InvalidRegionError: as ``attach``.
        PayloadTooLargeError: the data does not fit into a record.
    """
    return client_of(path).call(function, data, timeout=timeout, method=method)


def _after_fork() -> None:
    """Start anew in a child: the attachment is its parent's."""
    global _clients_lock  # noqa: PLW0603  # another thread may have held it when this one forked
    _clients_lock = threading.Lock()
    for client in _clients.values():
        client.abandon()
    _clients.clear()


os.register_at_fork(after_in_child=_after_fork)
