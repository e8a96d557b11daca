# SPDX-License-Identifier: Apache-2.0
"""Side sockets as a peer meets them, which may look for one at any moment."""

from __future__ import annotations

import socket
import threading
from typing import TYPE_CHECKING

from aetherless_ipc.sidesocket import SOCKET_MODE, SOCKET_NAME, listen, remove
from framework.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

TIMES = 300


def test_what_is_seen_may_be_connected_to(tmp_path: Path) -> None:
    """From the moment that it has its name, also where it replaces what a dead service left."""
    modes: set[int] = set()
    done = threading.Event()

    def look() -> None:
        while not done.is_set():
            modes.add((tmp_path / SOCKET_NAME).stat().st_mode & 0o777)

    listen(tmp_path).close()
    looking = threading.Thread(target=look)
    looking.start()
    wait_until(lambda: modes, "somebody looks")
    for _ in range(TIMES):
        with listen(tmp_path), socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as client:
            client.connect(str(tmp_path / SOCKET_NAME))
    done.set()
    looking.join(10)
    assert modes == {SOCKET_MODE}


def test_nothing_of_it_is_left(tmp_path: Path) -> None:
    """Nor of one that a service died over; where there is none, none is removed."""
    with listen(tmp_path):
        (tmp_path / f".{SOCKET_NAME}").touch()
        remove(tmp_path)
    assert list(tmp_path.iterdir()) == []
    remove(tmp_path)
    remove(tmp_path / "gone")
