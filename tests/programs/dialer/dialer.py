# SPDX-License-Identifier: Apache-2.0
"""A server that keeps connections to another function: one that it uses, one that it watches.

The used one is connected again when a request finds it broken, as a pool does; the watched one at
once when it ends, as a subscriber does. PEER is the other function's trigger port on localhost.
"""

from __future__ import annotations

import json
import os
import socket
import threading
import time
from http.client import HTTPConnection, HTTPException
from http.server import BaseHTTPRequestHandler, HTTPServer

PEER = ("localhost", int(os.environ["PEER"]))
RETRY_S = 0.02
TIMEOUT_S = 10.0


class Pool:
    """One kept connection, made again when it broke."""

    def __init__(self) -> None:
        self.made = 0
        self.broken: list[str] = []
        self.connection: HTTPConnection | None = None

    def ask(self) -> str:
        """Return what the peer says of its start."""
        try:
            return self.request()
        except (OSError, HTTPException) as error:
            self.broken.append(type(error).__name__)
            self.connection = None
            return self.request()

    def request(self) -> str:
        """Ask over the kept connection, which is made when there is none."""
        if self.connection is None:
            self.connection = HTTPConnection(*PEER, timeout=TIMEOUT_S)
            self.made += 1
        self.connection.request("GET", "/")
        return str(json.load(self.connection.getresponse())["started_at"])


class Watcher(threading.Thread):
    """A connection that only waits, and is made again as soon as it ends."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.made = 0

    def run(self) -> None:
        """Connect, wait for the end, and so on for ever."""
        while True:
            try:
                with socket.create_connection(PEER) as connection:
                    self.made += 1
                    connection.recv(1)
            except OSError:
                time.sleep(RETRY_S)


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with how the connections are."""

    def do_GET(self) -> None:
        """Use the pool and tell."""
        try:
            status, peer = 200, POOL.ask()
        except (OSError, HTTPException) as error:
            status, peer = 502, repr(error)
        told = {
            "peer": peer,
            "made": POOL.made,
            "broken": POOL.broken,
            "watched": WATCHER.made,
        }
        body = json.dumps(told).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    POOL, WATCHER = Pool(), Watcher()
    WATCHER.start()
    HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
