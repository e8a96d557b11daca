# SPDX-License-Identifier: Apache-2.0
"""The request that proves a handler answers, sent from inside its sandbox.

Servers listen 60 to 90 ms before their workers can answer, so a refused, reset or silent try is
repeated until the time is over.
"""

from __future__ import annotations

import socket
import time
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_snapshotter import netns

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

_RETRY_SECONDS = 0.02
_TRY_SECONDS = 5.0
_BLOCK = 1 << 16
_MAX_BODY = 8 << 20


class NoAnswerError(Exception):
    """The handler did not answer in time; the text says how the last try ended."""


def warm_up(
    netns_path: Path,
    listener: netns.TcpSocket,
    warmup: instance_pb2.Warmup,
    deadline: float,
    check: Callable[[], None],
) -> str:
    """Repeat the warm-up until it is answered; returns one line about the answer.

    ``check`` is called before every try and raises when the handler ended.

    Raises:
        NoAnswerError: ``deadline`` (of time.monotonic) came first.
    """
    if warmup.kind == instance_pb2.WARMUP_KIND_NONE:
        return "none asked for"
    tries = 0
    while True:
        check()
        tries += 1
        try:
            said = _one_try(netns_path, listener, warmup, deadline)
        except OSError as error:
            problem = error.strerror or str(error)
        else:
            return f"{said}, try {tries}"
        if time.monotonic() + _RETRY_SECONDS >= deadline:
            raise NoAnswerError(problem)
        time.sleep(_RETRY_SECONDS)


def _one_try(
    netns_path: Path, listener: netns.TcpSocket, warmup: instance_pb2.Warmup, deadline: float
) -> str:
    """Connect and, for HTTP, get the answer's status line.

    Raises:
        OSError: no connection, or no answer.
    """
    family, address = listener.probe_address
    with netns.make_socket(netns_path, family, socket.SOCK_STREAM) as connection:
        until = min(deadline, time.monotonic() + _TRY_SECONDS)
        connection.settimeout(_left(until))
        connection.connect((address, listener.local_port))
        if warmup.kind == instance_pb2.WARMUP_KIND_TCP:
            return "connection accepted"
        host = f"[{address}]" if family == socket.AF_INET6 else address
        request = (
            f"GET {warmup.path or '/'} HTTP/1.1\r\nHost: {host}:{listener.local_port}\r\n"
            "User-Agent: aetherless-warmup\r\nAccept: */*\r\nConnection: close\r\n\r\n"
        )
        connection.sendall(request.encode())
        return _status_line(connection, until)


def _status_line(connection: socket.socket, until: float) -> str:
    """Read an HTTP answer to its end, or its head until a time; return its first line."""
    received = b""
    total = 0
    while total < _MAX_BODY:
        try:
            connection.settimeout(_left(until))
            block = connection.recv(_BLOCK)
        except OSError:
            if received:
                break  # judged by what came: it may keep the connection, or end it with a reset
            raise
        if not block:
            break
        total += len(block)
        received = (received + block)[:_BLOCK]
    return _first_line(received)


def _first_line(received: bytes) -> str:
    """Return the first line of an HTTP answer whose head is complete.

    Raises:
        ConnectionError: it is none.
    """
    line = received.split(b"\r\n", 1)[0].decode("latin-1")
    if not line.startswith("HTTP/"):
        raise ConnectionError(f"not an HTTP answer: {line[:80]!r}" if line else "empty answer")
    if b"\r\n\r\n" not in received and b"\n\n" not in received:
        raise ConnectionError(f"the answer's head did not end: {line[:80]!r}")
    return line[:120]


def _left(until: float) -> float:
    """Return the seconds until a time, never so few that a socket would not wait at all."""
    return max(0.01, until - time.monotonic())
