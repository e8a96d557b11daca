#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A function that knows nothing of Aetherless: it listens on PORT, loopback only, and keeps notes.

POST / with a text adds a note, GET / lists them. What was noted after the snapshot is lost with
the process that was evicted: a function's memory is that of its snapshot.
"""

from __future__ import annotations

import os
from http.server import BaseHTTPRequestHandler, HTTPServer

NOTES = [f"this list was begun by {os.environ.get('AUTHOR', 'nobody')}"]


class Notes(BaseHTTPRequestHandler):
    """Lists the notes, or adds one."""

    def do_GET(self) -> None:
        """List the notes."""
        self._answer(200, "\n".join(NOTES))

    def do_POST(self) -> None:
        """Add a note."""
        length = int(self.headers.get("Content-Length", "0"))
        NOTES.append(self.rfile.read(length).decode(errors="replace"))
        self._answer(201, f"{len(NOTES)} notes")

    def _answer(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode() + b"\n")


if __name__ == "__main__":
    HTTPServer(("127.0.0.1", int(os.environ["PORT"])), Notes).serve_forever()
