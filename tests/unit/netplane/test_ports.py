# SPDX-License-Identifier: Apache-2.0
"""Who listens on a port, found in the kernel's own tables."""

from __future__ import annotations

import os
import socket

import pytest

from aetherless_common.errors import FailedPrecondition
from aetherless_netplane import ports

HEAD = (
    "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt uid timeout inode"
)
ROWS = """
   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 111 1
   1: 0100007F:1F90 0100007F:C350 01 00000000:00000000 00:00000000 00000000     0        0 222 1
   2: 00000000:0050 00000000:0000 0A 00000000:00000000 00:00000000 00000000     0        0 333 1
"""


def test_only_listeners_of_the_port_are_found() -> None:
    """A connection from the port, and a listener on another, are not meant."""
    assert ports.listening(HEAD + ROWS, 8080) == {"111"}
    assert ports.listening(HEAD + ROWS, 80) == {"333"}
    assert ports.listening(HEAD + ROWS, 81) == set()


def test_a_listener_is_named() -> None:
    """This very process listens; it is found by its socket's inode."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
        name, pid = ports.listener_of(port)
        assert pid == os.getpid()
        assert name
        with pytest.raises(FailedPrecondition) as error, ports.held(port):
            raise AssertionError("held a port that is in use")
    assert error.value.metadata["pid"] == str(os.getpid())


def test_a_free_port_is_held_against_others() -> None:
    """While it is held nobody else binds it; afterwards it is free again."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with ports.held(port), socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind(("127.0.0.1", port))
    with socket.socket() as other:
        other.bind(("127.0.0.1", port))
    assert ports.listener_of(port) == (ports.UNKNOWN, None)
