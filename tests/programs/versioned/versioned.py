# SPDX-License-Identifier: Apache-2.0
"""A server that tells which version of its files it started with, and which it finds now."""

from __future__ import annotations

import json
import os
import secrets
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

VERSION = Path(__file__).with_name("version")
STARTED_WITH = VERSION.read_text()
TOKEN = secrets.token_hex(8)


class Handler(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        """Tell version, environment and what the process remembers."""
        told = {
            "version": STARTED_WITH,
            "again": VERSION.read_text(),
            "colour": os.environ["COLOUR"],
            "token": TOKEN,
        }
        body = json.dumps(told).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
