# SPDX-License-Identifier: Apache-2.0
"""A server that sends READY once it listens and keeps its AETHER_SOCKET open ever after."""

from __future__ import annotations

import json
import os
import secrets
import socket
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count

TOKEN = secrets.token_hex(8)
COUNTER = count(1)
AETHER = socket.socket(socket.AF_UNIX)


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with what the process remembers."""

    def do_GET(self) -> None:
        """Count the request and answer; say whether the socket's descriptor is still open."""
        memory = {
            "token": TOKEN,
            "count": next(COUNTER),
            "pid": os.getpid(),
            "socket_open": AETHER.fileno() >= 0 and bool(os.fstat(AETHER.fileno())),
        }
        body = json.dumps(memory).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", int(os.environ["AETHER_TRIGGER_PORT"])), Handler)
    AETHER.connect(os.environ["AETHER_SOCKET"])
    AETHER.sendall(b"READY")
    server.serve_forever()
