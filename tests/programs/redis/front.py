# SPDX-License-Identifier: Apache-2.0
"""An HTTP server whose memory is a redis beside it, over one connection that it keeps."""

from __future__ import annotations

import json
import os
import secrets
import socket
import time
from http.server import BaseHTTPRequestHandler, HTTPServer

REDIS = ("127.0.0.1", 6379)
START_S = 10.0


class Redis:
    """A connection to redis, in its own protocol: commands that answer one line or one text."""

    def __init__(self) -> None:
        self.socket = connect()
        self.answers = self.socket.makefile("rb")

    def ask(self, *words: str) -> str:
        """Send a command and return its answer."""
        parts = [f"*{len(words)}", *(f"${len(word)}\r\n{word}" for word in words), ""]
        self.socket.sendall("\r\n".join(parts).encode())
        kind, rest = self.line()
        if kind == "-":
            raise RuntimeError(rest)
        return "".join(self.line()) if kind == "$" else rest

    def line(self) -> tuple[str, str]:
        """Return an answer's first character, and what follows it."""
        text = self.answers.readline().decode().rstrip("\r\n")
        return text[:1], text[1:]


def connect() -> socket.socket:
    """Return a connection once redis listens; ConnectionRefusedError when it never does."""
    until = time.monotonic() + START_S
    while True:
        try:
            return socket.create_connection(REDIS)
        except ConnectionRefusedError:
            if time.monotonic() > until:
                raise
            time.sleep(0.02)


class Front(BaseHTTPRequestHandler):
    """Answers every GET with what redis remembers."""

    def do_GET(self) -> None:
        """Have redis count the request, and answer."""
        memory = {
            "token": STORE.ask("GET", "token"),
            "count": int(STORE.ask("INCR", "count")),
            "pid": os.getpid(),
            "edition": os.environ.get("EDITION", "1"),
        }
        body = json.dumps(memory).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    STORE = Redis()
    STORE.ask("SET", "token", secrets.token_hex(8))
    HTTPServer(("", int(os.environ["PORT"])), Front).serve_forever()
