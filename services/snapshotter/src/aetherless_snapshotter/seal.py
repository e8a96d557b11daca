# SPDX-License-Identifier: Apache-2.0
"""Closes a sandbox off from the outside for a while: whatever it sends out is unreachable.

Two halves of each family's address space are led nowhere. They go before the sandbox's default
route, which stays, and do not concern its own addresses; programs meet EHOSTUNREACH at once.
"""

from __future__ import annotations

import errno
import os
import socket
import struct
from contextlib import ExitStack, contextmanager
from typing import TYPE_CHECKING

from aetherless_snapshotter import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_NEW_ROUTE, _DELETE_ROUTE = 24, 25
_REQUEST_ACK = 0x5
_CREATE = 0x400
_ERROR = 2
_MAIN_TABLE, _BOOT_PROTOCOL, _UNREACHABLE, _DESTINATION = 254, 3, 7, 1
_HALF = 1  # bits of the prefix
_TIMEOUT = 5.0
_HALVES = tuple(
    (family, bytes([first]) + bytes(length - 1))
    for family, length in ((socket.AF_INET, 4), (socket.AF_INET6, 16))
    for first in (0x00, 0x80)
)
#: The kernel has no IPv6, or none in this namespace: nothing leaves by it either.
_NO_SUCH_FAMILY = frozenset({errno.EAFNOSUPPORT, errno.EOPNOTSUPP, errno.EACCES})


@contextmanager
def sealed(netns_path: Path) -> Iterator[None]:
    """Let nothing out of a network namespace as long as the context lasts.

    Raises:
        OSError: the namespace is gone, or its routes can't be changed.
    """
    family, protocol = socket.AF_NETLINK, socket.NETLINK_ROUTE
    with netns.make_socket(netns_path, family, socket.SOCK_RAW, protocol) as connection:
        connection.settimeout(_TIMEOUT)
        with ExitStack() as opening:
            for half in _HALVES:
                opening.callback(_change, connection, _DELETE_ROUTE, half)  # each, whatever fails
                _change(connection, _NEW_ROUTE, half)
            yield


def _change(connection: socket.socket, kind: int, half: tuple[int, bytes]) -> None:
    """Add or remove one route (rtnetlink(7)); one that is there, or gone, already is fine."""
    family, prefix = half
    body = struct.pack(
        "=BBBBBBBBI", family, _HALF, 0, 0, _MAIN_TABLE, _BOOT_PROTOCOL, 0, _UNREACHABLE, 0
    )
    body += struct.pack("=HH", 4 + len(prefix), _DESTINATION) + prefix
    flags = _REQUEST_ACK | (_CREATE if kind == _NEW_ROUTE else 0)
    connection.send(struct.pack("=IHHII", 16 + len(body), kind, flags, 1, 0) + body)
    answer = connection.recv(1 << 16)
    (said,) = struct.unpack_from("=H", answer, 4)
    number = -struct.unpack_from("=i", answer, 16)[0] if said == _ERROR else errno.EPROTO
    fine = errno.EEXIST if kind == _NEW_ROUTE else errno.ESRCH
    if number in (0, fine) or (family == socket.AF_INET6 and number in _NO_SUCH_FAMILY):
        return
    raise OSError(number, os.strerror(number), "unreachable route")
