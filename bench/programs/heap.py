# SPDX-License-Identifier: Apache-2.0
"""An HTTP server of the standard library that keeps HEAP_MB of memory, each page written once."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

PAGE = 4096
HEAP = bytearray(int(os.environ["HEAP_MB"]) << 20)
for place in range(0, len(HEAP), PAGE):
    HEAP[place : place + 8] = place.to_bytes(8, "little")


class Heap(BaseHTTPRequestHandler):
    """Answers every GET with the size of the heap and what lies in its middle."""

    def do_GET(self) -> None:
        """Answer."""
        middle = len(HEAP) // 2 // PAGE * PAGE
        found = int.from_bytes(HEAP[middle : middle + 8], "little")
        body = f"{len(HEAP) >> 20} MB, {found}\n".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


ThreadingHTTPServer(("", int(os.environ["PORT"])), Heap).serve_forever()
