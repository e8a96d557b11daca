# SPDX-License-Identifier: Apache-2.0
"""Look into a sandbox's network namespace: sockets made there, and who listens.

A thread of our own enters the namespace, makes the socket and ends; the socket stays in that
namespace wherever it is used afterwards, and the service's other threads never leave the host's.
"""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address, ip_address
from typing import TYPE_CHECKING, Self

from aetherless.snapshotter.v1 import snapshot_pb2

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

_CLONE_NEWNET = 0x40000000
_NETLINK_SOCK_DIAG = 4
_SOCK_DIAG_BY_FAMILY = 20
_NLM_F_REQUEST_DUMP = 0x301
_NLMSG_ERROR = 2
_NLMSG_DONE = 3
_INET_DIAG_SKV6ONLY = 11
_TCP_LISTEN = 10
_TCP_TIME_WAIT = 6
_TCP_CLOSE = 7
_UNCONNECTED = frozenset({_TCP_LISTEN, _TCP_CLOSE, _TCP_TIME_WAIT})
_ALL_STATES = 0xFFF
_DIAG_MESSAGE = 72
_TIMEOUT = 5.0

_libc = ctypes.CDLL(None, use_errno=True)


def make_socket(netns: Path, family: int, kind: int, protocol: int = 0) -> socket.socket:
    """Return a new socket that belongs to the network namespace at ``netns``.

    Raises:
        OSError: the namespace can't be entered, or the socket not made.
    """
    made: list[socket.socket] = []
    failed: list[OSError] = []

    def inside() -> None:
        try:
            _enter(netns)
            made.append(socket.socket(family, kind | socket.SOCK_CLOEXEC, protocol))
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=inside, name="netns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return made[0]


def _enter(netns: Path) -> None:
    """Move the calling thread into a network namespace.

    SAFETY: only this thread moves, and it ends right after; no other thread is affected.
    """
    descriptor = os.open(netns, os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWNET) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number), str(netns))
    finally:
        os.close(descriptor)


@dataclass(frozen=True)
class TcpSocket:
    """One TCP socket of the namespace."""

    state: int
    local: IPv4Address | IPv6Address
    local_port: int
    remote: IPv4Address | IPv6Address
    remote_port: int
    only_ipv6: bool
    #: For a listener, the connections that wait to be accepted; else bytes not read yet.
    queued: int = 0
    #: Its file's inode number, as links in /proc/PID/fd have it.
    inode: int = 0

    @property
    def leads_outside(self) -> bool:
        """Whether it is part of a connection whose other end is not in this namespace."""
        if self.state in _UNCONNECTED or self.remote.is_unspecified:
            return False
        mapped = self.remote.ipv4_mapped if isinstance(self.remote, IPv6Address) else None
        return self.remote != self.local and not (mapped or self.remote).is_loopback

    @property
    def place(self) -> str:
        """Its own address and port as text."""
        return _place(self.local, self.local_port)

    @property
    def remote_place(self) -> str:
        """Its peer's address and port as text."""
        return _place(self.remote, self.remote_port)

    @property
    def listens(self) -> bool:
        """Whether it accepts connections."""
        return self.state == _TCP_LISTEN

    @property
    def takes_ipv4(self) -> bool:
        """Whether IPv4 clients reach this listener."""
        if isinstance(self.local, IPv4Address) or self.local.ipv4_mapped is not None:
            return True
        return self.local.is_unspecified and not self.only_ipv6

    @property
    def takes_ipv6(self) -> bool:
        """Whether IPv6 clients reach this listener."""
        return isinstance(self.local, IPv6Address) and self.local.ipv4_mapped is None

    @property
    def probe_address(self) -> tuple[int, str]:
        """The family and address at which a client inside reaches this listener."""
        family = socket.AF_INET if isinstance(self.local, IPv4Address) else socket.AF_INET6
        if not self.local.is_unspecified:
            return family, str(self.local)
        return (socket.AF_INET, "127.0.0.1") if self.takes_ipv4 else (socket.AF_INET6, "::1")


class TcpTable:
    """Lists the TCP sockets of one namespace by inet_diag (sock_diag(7)); a context manager."""

    def __init__(self, netns: Path) -> None:
        self._socket = diagnosis(netns)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def all(self) -> list[TcpSocket]:
        """Return all sockets that have a port."""
        return list(self.each())

    def each(self) -> Iterator[TcpSocket]:
        """Yield them as the kernel tells of them; a table that is left in between is used up."""
        for family in (socket.AF_INET, socket.AF_INET6):
            yield from self._dump(family)

    def on_port(self, port: int) -> list[TcpSocket]:
        """Return the sockets whose local port is ``port``."""
        return [found for found in self.all() if found.local_port == port]

    def listeners(self, port: int) -> list[TcpSocket]:
        """Return the sockets that listen on ``port``."""
        return [found for found in self.on_port(port) if found.listens]

    def connections(self, port: int) -> list[TcpSocket]:
        """Return the sockets of ``port`` that are part of a connection."""
        return [found for found in self.on_port(port) if not found.listens]

    def _dump(self, family: int) -> Iterator[TcpSocket]:
        """Yield all TCP sockets of a family."""
        request = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, _ALL_STATES)
        return map(_tcp_socket, ask(self._socket, request))


def diagnosis(netns: Path) -> socket.socket:
    """Return a sock_diag(7) socket of the network namespace at ``netns``."""
    made = make_socket(netns, socket.AF_NETLINK, socket.SOCK_DGRAM, _NETLINK_SOCK_DIAG)
    made.settimeout(_TIMEOUT)
    return made


def ask(diagnosis: socket.socket, request: bytes) -> Iterator[bytes]:
    """Yield what the kernel answers to one request for a list of sockets."""
    header = struct.pack(
        "=IHHII", 16 + len(request), _SOCK_DIAG_BY_FAMILY, _NLM_F_REQUEST_DUMP, 1, 0
    )
    diagnosis.send(header + request)
    done = False
    while not done:
        for kind, payload in _messages(diagnosis.recv(1 << 16)):
            if kind == _NLMSG_ERROR:
                number = -struct.unpack_from("=i", payload)[0]
                raise OSError(number, os.strerror(number), "sock_diag")
            done = done or kind == _NLMSG_DONE
            if kind == _SOCK_DIAG_BY_FAMILY:
                yield payload


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each netlink message in ``data``."""
    position = 0
    while position + 16 <= len(data):
        length, kind = struct.unpack_from("=IH", data, position)
        yield kind, data[position + 16 : position + length]
        position += (length + 3) & ~3


def _tcp_socket(payload: bytes) -> TcpSocket:
    """Decode one inet_diag_msg with its attributes."""
    family, state = payload[0], payload[1]
    local_port, remote_port = struct.unpack_from("!HH", payload, 4)
    size = 4 if family == socket.AF_INET else 16
    local = ip_address(payload[8 : 8 + size])
    remote = ip_address(payload[24 : 24 + size])
    only_ipv6 = attribute(payload, _DIAG_MESSAGE, _INET_DIAG_SKV6ONLY)[:1] == b"\x01"
    (queued,) = struct.unpack_from("=I", payload, 56)
    (inode,) = struct.unpack_from("=I", payload, 68)
    return TcpSocket(state, local, local_port, remote, remote_port, only_ipv6, queued, inode)


def attribute(payload: bytes, position: int, wanted: int) -> bytes:
    """Return the value of one attribute from ``position`` on; empty when it is not there."""
    while position + 4 <= len(payload):
        length, kind = struct.unpack_from("=HH", payload, position)
        if kind == wanted:
            return payload[position + 4 : position + length]
        position += max(4, (length + 3) & ~3)
    return b""


def _place(address: IPv4Address | IPv6Address, port: int) -> str:
    """Return an address and a port as text; one of IPv6 in brackets."""
    return f"[{address}]:{port}" if isinstance(address, IPv6Address) else f"{address}:{port}"


def families(listeners: list[TcpSocket]) -> snapshot_pb2.ListenFamilies.ValueType:
    """Return which address families the listeners of a port serve together."""
    ipv4 = any(found.takes_ipv4 for found in listeners)
    ipv6 = any(found.takes_ipv6 for found in listeners)
    if ipv4 and ipv6:
        return snapshot_pb2.LISTEN_FAMILIES_DUAL
    if ipv6:
        return snapshot_pb2.LISTEN_FAMILIES_IPV6
    return snapshot_pb2.LISTEN_FAMILIES_IPV4
