# SPDX-License-Identifier: Apache-2.0
"""A handler that answers, and holds an io_uring, which CRIU can't dump."""

from __future__ import annotations

import ctypes
import os
import sys
from http.server import BaseHTTPRequestHandler, HTTPServer

IO_URING_SETUP = 425
ENTRIES, PARAMETER_BYTES = 8, 120


class Handler(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        """Send an empty answer."""
        self.send_response(204)
        self.end_headers()


libc = ctypes.CDLL(None, use_errno=True)
ring = libc.syscall(IO_URING_SETUP, ENTRIES, ctypes.create_string_buffer(PARAMETER_BYTES))
if ring < 0:
    sys.exit(f"ring: io_uring_setup: {os.strerror(ctypes.get_errno())}")
print("ring: holds", ring, flush=True)
HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
