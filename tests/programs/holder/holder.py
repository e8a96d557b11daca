# SPDX-License-Identifier: Apache-2.0
"""A handler that holds what the variable HOLDS names, and answers every GET."""

from __future__ import annotations

import ctypes
import mmap
import os
import socket
import sys
import time
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

IO_URING_SETUP = 425
ENTRIES, PARAMETER_BYTES = 8, 120
PAGE = 4096
kept: list[object] = []


class Handler(BaseHTTPRequestHandler):
    """Answers every GET, or one only."""

    asked = 0
    mute = False

    def do_GET(self) -> None:
        """Send an empty answer."""
        Handler.asked += 1
        if self.mute and self.asked > 1:
            time.sleep(600)
        self.send_response(204)
        self.end_headers()


def io_uring() -> None:
    """Hold a ring, which CRIU can't dump."""
    libc = ctypes.CDLL(None, use_errno=True)
    ring = libc.syscall(IO_URING_SETUP, ENTRIES, ctypes.create_string_buffer(PARAMETER_BYTES))
    if ring < 0:
        sys.exit(f"holder: io_uring_setup: {os.strerror(ctypes.get_errno())}")


def deleted_mapping() -> None:
    """Map a file that is deleted then."""
    path = Path("/tmp/mapped")
    path.write_bytes(b"x" * PAGE)
    with path.open("r+b") as file:
        kept.append(mmap.mmap(file.fileno(), PAGE))
    path.unlink()


def listener() -> None:
    """Listen on a second port."""
    kept.append(socket.create_server(("127.0.0.1", 9001)))


def outbound() -> None:
    """Stay connected to another function."""
    kept.append(socket.create_connection(("127.0.0.1", int(os.environ["PEER_PORT"]))))


def long_start() -> None:
    """Take a while before it listens."""
    time.sleep(600)


def one_answer() -> None:
    """Fall silent after the first answer."""
    Handler.mute = True


HOLDINGS = {
    each.__name__: each
    for each in (io_uring, deleted_mapping, listener, outbound, long_start, one_answer)
}
if wanted := os.environ.get("HOLDS"):
    HOLDINGS[wanted]()
print("holder: holds", wanted, "for", os.environ["AETHER_FUNCTION_ID"], flush=True)
HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
