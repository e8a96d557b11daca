# SPDX-License-Identifier: Apache-2.0
"""A master that runs as root, and a worker to which it gives another user.

The worker answers; the kernel lets nobody read the memory of a process that changed its user, and
only the master may end it.
"""

from __future__ import annotations

import json
import os
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

USER, NUMBER = "www-data", 33
SECRET = Path("/tmp/secret")


def readable(path: Path) -> bool:
    """Tell whether this process can read a file."""
    try:
        path.read_bytes()
    except PermissionError:
        return False
    return True


def rights() -> dict[str, list[str]]:
    """Return what the kernel says of this process's ids and capabilities."""
    lines = (line.split() for line in Path("/proc/thread-self/status").read_text().splitlines())
    names = ("Uid:", "Gid:", "Groups:", "CapPrm:", "CapEff:", "CapBnd:", "NoNewPrivs:")
    return {words[0].rstrip(":"): words[1:] for words in lines if words and words[0] in names}


class Handler(BaseHTTPRequestHandler):
    """Answers every GET with who answers."""

    def do_GET(self) -> None:
        """Tell the worker's rights, and whether it can read its master's file."""
        body = json.dumps({**rights(), "secret": readable(SECRET)}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Stay quiet."""


def work(server: HTTPServer) -> None:
    """Become another user for good, and answer for ever."""
    os.initgroups(USER, NUMBER)
    os.setgid(NUMBER)
    os.setuid(NUMBER)
    server.serve_forever()


if __name__ == "__main__":
    SECRET.touch(0o600)
    listening = HTTPServer(("", int(os.environ["PORT"])), Handler)
    worker = os.fork()
    if worker == 0:
        work(listening)
    os.waitpid(worker, 0)
