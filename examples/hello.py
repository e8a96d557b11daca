# SPDX-License-Identifier: Apache-2.0
"""A first function: an HTTP server of the standard library that shows that its memory survived.

It counts the requests it answered and remembers when it was started. After a restore both are
those of the snapshot: the process did not start again.
"""

from __future__ import annotations

import json
import os
import socket
from datetime import UTC, datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

STARTED_AT = datetime.now(UTC).isoformat(timespec="milliseconds")
COUNTER = {"answers": 0}


class Hello(BaseHTTPRequestHandler):
    """Answers every GET with what this process remembers."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second must not wait 40 ms

    def do_GET(self) -> None:
        """Answer with the process id, the counter and the time of the one real start."""
        COUNTER["answers"] += 1
        body = json.dumps(
            {
                "message": "hello from a restored process",
                "function": os.environ.get("AETHER_FUNCTION_ID", ""),
                "pid": os.getpid(),
                "counter": COUNTER["answers"],
                "started_at": STARTED_AT,
                "path": self.path,
            }
        ).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body) + 1))
        self.end_headers()
        self.wfile.write(body + b"\n")

    def log_message(self, format: str, *arguments: object) -> None:  # noqa: A002 (its name)
        """Print each request, so that `aetherctl logs` has something to show."""
        print(f"answer {COUNTER['answers']}:", format % arguments, flush=True)


def say_ready() -> None:
    """Say READY on the orchestrator's socket; optional, and allowed before we listen."""
    path = os.environ.get("AETHER_SOCKET")
    if path:
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as ready:
            ready.connect(path)
            ready.sendall(b"READY")


def main() -> None:
    """Serve on the port that the orchestrator names."""
    say_ready()
    port = int(os.environ.get("AETHER_TRIGGER_PORT", "8080"))
    print(f"serving on port {port}", flush=True)
    ThreadingHTTPServer(("", port), Hello).serve_forever()


if __name__ == "__main__":
    main()
