# SPDX-License-Identifier: Apache-2.0
"""The Unix sockets of a network namespace and who is connected to whom.

By unix_diag, see sock_diag(7); layouts are those of linux/unix_diag.h.
"""

from __future__ import annotations

import os
import socket
import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_snapshotter import netns

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_ALL_STATES = 0xFFFFFFFF
_SHOW_NAME, _SHOW_PEER, _SHOW_PENDING = 1, 4, 8
_NAME, _PEER, _PENDING = 0, 2, 3
_MESSAGE_BYTES = 16
_LISTEN = 10


@dataclass(frozen=True)
class UnixSocket:
    """One Unix socket.

    Attributes:
        inode: what /proc/PID/fd shows it as.
        name: the path it is bound to; an abstract one begins with "@"; empty when not bound.
        peer: the inode of the socket it is connected to; 0 for none.
        pending: of a listener, the inodes of the clients not accepted yet; 0 for one that left.
    """

    inode: int
    name: str
    peer: int
    listens: bool
    pending: tuple[int, ...]


def unix_sockets(namespace: Path) -> Iterator[UnixSocket]:
    """Yield the Unix sockets of the network namespace at ``namespace``.

    Raises:
        OSError: the namespace can't be entered.
    """
    shown = _SHOW_NAME | _SHOW_PEER | _SHOW_PENDING
    request = struct.pack("=BBxxIIIII", socket.AF_UNIX, 0, _ALL_STATES, 0, shown, 0, 0)
    with netns.diagnosis(namespace) as diagnosis:
        yield from map(_unix_socket, netns.ask(diagnosis, request))


def _unix_socket(payload: bytes) -> UnixSocket:
    """Decode one unix_diag_msg with its attributes."""
    state, inode = struct.unpack_from("=xxBxI", payload)
    name = netns.attribute(payload, _MESSAGE_BYTES, _NAME)
    peer = netns.attribute(payload, _MESSAGE_BYTES, _PEER)
    pending = netns.attribute(payload, _MESSAGE_BYTES, _PENDING)
    return UnixSocket(
        inode=inode,
        name=_readable(name),
        peer=struct.unpack("=I", peer)[0] if peer else 0,
        listens=state == _LISTEN,
        pending=struct.unpack(f"={len(pending) // 4}I", pending),
    )


def _readable(name: bytes) -> str:
    """Return a name as text."""
    if name.startswith(b"\0"):
        return f"@{os.fsdecode(name[1:])}"
    return os.fsdecode(name.rstrip(b"\0"))
