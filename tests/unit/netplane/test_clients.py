# SPDX-License-Identifier: Apache-2.0
"""Ending connections by their peer's network, on real connections of the host's loopback."""

from __future__ import annotations

import contextlib
import errno
import os
import socket
from ipaddress import IPv4Network, ip_network
from typing import TYPE_CHECKING

import pytest

from aetherless_netplane.clients import end_clients

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root
# A part of 127.0.0.0/8 that only this process calls.
NETWORK = IPv4Network((f"127.77.{os.getpid() % 250}.0", 24))
INSIDE, OUTSIDE = str(NETWORK[1]), "127.78.0.1"


@contextlib.contextmanager
def connection(address: str, family: int = socket.AF_INET) -> Iterator[socket.socket]:
    """Give a client that is connected to an address."""
    target = f"::ffff:{address}" if family == socket.AF_INET6 else address
    with socket.create_server((address, 0)) as server, socket.socket(family) as client:
        client.settimeout(10)
        client.connect((target, server.getsockname()[1]))
        peer, _ = server.accept()
        with peer:
            yield client


def error_of(client: socket.socket) -> int:
    """Return a socket's pending error."""
    return client.getsockopt(socket.SOL_SOCKET, socket.SO_ERROR)


@pytest.mark.parametrize("family", [socket.AF_INET, socket.AF_INET6], ids=["ipv4", "v4-mapped"])
def test_a_client_of_the_network_is_ended(family: int) -> None:
    """It has an error at once, and does not wait for a packet that never comes."""
    with connection(INSIDE, family) as client:
        assert end_clients([NETWORK]) == 1
        assert error_of(client) == errno.ECONNABORTED


def test_other_clients_go_on() -> None:
    """A connection to somewhere else is not touched."""
    with connection(OUTSIDE) as client, connection(INSIDE):
        assert end_clients([NETWORK]) == 1
        assert error_of(client) == 0
        client.sendall(b"still here")


def test_a_client_whose_syn_waits_is_ended() -> None:
    """A client that is not connected yet, as during a wake, is ended too."""
    with contextlib.ExitStack() as stack:
        server = stack.enter_context(socket.create_server((INSIDE, 0), backlog=0))
        waiting = [stack.enter_context(socket.socket()) for _ in range(4)]
        for client in waiting:
            client.setblocking(False)  # noqa: FBT003 (the standard library's)
            assert client.connect_ex(server.getsockname()) == errno.EINPROGRESS
        # Two fit the queue; the others' SYNs are dropped, and they stay in SYN_SENT.
        assert end_clients([NETWORK]) == len(waiting)
        assert {error_of(client) for client in waiting} == {errno.ECONNABORTED}


def test_nothing_to_end() -> None:
    """No connection leads there: none is ended."""
    assert end_clients([ip_network("fd00:ae:ffff::/112"), NETWORK]) == 0
