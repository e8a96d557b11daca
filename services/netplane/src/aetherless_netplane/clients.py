# SPDX-License-Identifier: Apache-2.0
"""Ends the host's connections to outer addresses that nothing is behind any more.

A client that waits for a sandbox that is taken away would wait until TCP gives up, and send its
packets into the void meanwhile. Ended by sock_diag(7), its calls fail with ECONNABORTED at once.
"""

from __future__ import annotations

import os
import socket
import struct
from ipaddress import ip_address
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Network, IPv6Network

NETLINK_SOCK_DIAG = 4
SOCK_DIAG_BY_FAMILY, SOCK_DESTROY = 20, 21
REQUEST_ACK, REQUEST_DUMP = 0x005, 0x301
NLMSG_ERROR, NLMSG_DONE = 2, 3
TIME_WAIT, LISTEN = 6, 10
CONNECTED = 0xFFF & ~(1 << TIME_WAIT | 1 << LISTEN)
HEADER = struct.Struct("=IHHII")
SOCKET_ID = slice(4, 52)  # struct inet_diag_sockid in struct inet_diag_msg
TIMEOUT = 5.0


def end_clients(networks: Iterable[IPv4Network | IPv6Network]) -> int:
    """End the TCP connections of this network namespace to these networks; return how many.

    Raises:
        OSError: the kernel does not list or end them.
    """
    wanted = tuple(networks)
    with socket.socket(socket.AF_NETLINK, socket.SOCK_DGRAM, NETLINK_SOCK_DIAG) as diag:
        diag.settimeout(TIMEOUT)
        found = [
            (family, identity)
            for family in (socket.AF_INET, socket.AF_INET6)
            for identity in _dump(diag, family)
            if _leads_to(identity, family, wanted)
        ]
        return sum(_destroy(diag, family, identity) for family, identity in found)


def _leads_to(
    identity: bytes, family: int, networks: tuple[IPv4Network | IPv6Network, ...]
) -> bool:
    """Tell whether a connection's peer is in one of the networks."""
    size = 4 if family == socket.AF_INET else 16
    peer = ip_address(identity[20 : 20 + size])
    mapped = getattr(peer, "ipv4_mapped", None)
    return any((mapped or peer) in network for network in networks)


def _dump(diag: socket.socket, family: int) -> Iterator[bytes]:
    """Yield the identity of each connection of a family."""
    body = struct.pack("=BBBxI48x", family, socket.IPPROTO_TCP, 0, CONNECTED)
    diag.send(HEADER.pack(16 + len(body), SOCK_DIAG_BY_FAMILY, REQUEST_DUMP, 1, 0) + body)
    while True:
        for kind, payload in _messages(diag.recv(1 << 16)):
            if kind == NLMSG_DONE:
                return
            if kind == NLMSG_ERROR:
                _check(payload)
            yield payload[SOCKET_ID]


def _destroy(diag: socket.socket, family: int, identity: bytes) -> bool:
    """End one connection; tell whether it was still there."""
    body = struct.pack("=BBBxI", family, socket.IPPROTO_TCP, 0, CONNECTED) + identity
    diag.send(HEADER.pack(16 + len(body), SOCK_DESTROY, REQUEST_ACK, 2, 0) + body)
    for _, payload in _messages(diag.recv(1 << 16)):
        try:
            _check(payload)
        except FileNotFoundError:  # it ended by itself
            return False
    return True


def _check(payload: bytes) -> None:
    number = -struct.unpack_from("=i", payload)[0]
    if number:
        raise OSError(number, os.strerror(number))


def _messages(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Yield type and payload of each netlink message."""
    position = 0
    while position + HEADER.size <= len(data):
        length, kind, *_ = HEADER.unpack_from(data, position)
        yield kind, data[position + HEADER.size : position + length]
        position += (length + 3) & ~3
