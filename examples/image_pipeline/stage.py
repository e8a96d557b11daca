# SPDX-License-Identifier: Apache-2.0
"""One handler, two ways to it: the function's channel of shared memory, and HTTP on its port.

The second is there to be compared with the first: it hands its result to the function at NEXT by
another request, and answers with what that one answered.
"""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.request import Request, urlopen

import aetherless_client

Handler = Callable[[bytes], bytes]
PATIENCE_S = 30.0


def run(handler: Handler) -> None:
    """Serve a handler; does not return."""
    server = ThreadingHTTPServer(("127.0.0.1", int(os.environ["PORT"])), _over_http(handler))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    aetherless_client.serve(handler)


def _over_http(handler: Handler) -> type[BaseHTTPRequestHandler]:
    class Answering(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            self._answer(200, b"POST a picture\n")

        def do_POST(self) -> None:
            given = self.rfile.read(int(self.headers["Content-Length"]))
            try:
                self._answer(200, _pass_on(handler(given)))
            except ValueError as error:
                self._answer(422, str(error).encode())

        def _answer(self, status: int, data: bytes) -> None:
            self.send_response(status)
            self.send_header("Content-Length", str(len(data)))
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_: object) -> None:
            """Write no line for each request."""

    return Answering


def _pass_on(result: bytes) -> bytes:
    """Return what the next function makes of a result; the result when there is none."""
    address = os.environ.get("NEXT")
    if not address:
        return result
    # The address is the configuration's own.
    with urlopen(Request(address, result), timeout=PATIENCE_S) as answer:  # noqa: S310
        return bytes(answer.read())
