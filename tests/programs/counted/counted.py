# SPDX-License-Identifier: Apache-2.0
"""A server that writes each request's number to its output before it answers with it."""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer


class Handler(BaseHTTPRequestHandler):
    """Answers /NUMBER with NUMBER; other paths, such as the warm-up's, are not counted."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True
    wbufsize = -1

    def do_GET(self) -> None:
        """Write the number down, then answer."""
        number = self.path[1:]
        if number.isdigit():
            os.write(1, f"{number}\n".encode())
        body = number.encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    server = ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler)
    server.request_queue_size = 128
    server.serve_forever()
