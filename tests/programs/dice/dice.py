# SPDX-License-Identifier: Apache-2.0
"""A handler whose every answer has random numbers of several generators, as JSON."""

from __future__ import annotations

import json
import os
import random
import ssl
from http.server import BaseHTTPRequestHandler, HTTPServer

BYTES = 8


class Handler(BaseHTTPRequestHandler):
    """Answers every GET."""

    def do_GET(self) -> None:
        """Send what the generators give now."""
        numbers = {
            "random": random.random(),
            "openssl": ssl.RAND_bytes(BYTES).hex(),
            "kernel": os.urandom(BYTES).hex(),
        }
        body = json.dumps(numbers).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


HTTPServer(("", int(os.environ["PORT"])), Handler).serve_forever()
