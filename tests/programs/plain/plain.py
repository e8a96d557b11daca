# SPDX-License-Identifier: Apache-2.0
"""A server that knows only PORT, listens on 127.0.0.1 alone and never heard of AETHER_SOCKET."""

from __future__ import annotations

import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

TOKEN = secrets.token_hex(8)
COUNTER = count(1)


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with what the process remembers."""

    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        """Count the request and answer."""
        memory = {"token": TOKEN, "count": next(COUNTER), "pid": os.getpid(), "path": self.path}
        body = json.dumps(memory).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    print("plain: listening", flush=True)
    ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), Handler).serve_forever()
