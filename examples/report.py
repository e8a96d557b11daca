# SPDX-License-Identifier: Apache-2.0
"""A function that calls another one: a page about the tasks that rest_api.py keeps.

It finds the other at TASKS_URL, on localhost, by the other's trigger port; whichever of the two
does not run is restored by the call.
"""

from __future__ import annotations

import json
import os
from html import escape
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.error import URLError
from urllib.request import urlopen

TASKS_URL = os.environ.get("TASKS_URL", "http://localhost:8080/tasks")
TIMEOUT_S = 10.0


def page(tasks: list[dict[str, Any]]) -> str:
    """Return the tasks as HTML."""
    done = sum(task["done"] for task in tasks)
    head = f"<!doctype html><title>Tasks</title><h1>{done} of {len(tasks)} done</h1>"
    lines = "".join(f"<li>{escape(task['title'])}" for task in tasks)
    return f"{head}<ul>{lines}</ul>\n"


class Report(BaseHTTPRequestHandler):
    """Answers / with the report, and /health without asking the other function."""

    def do_GET(self) -> None:
        """Answer with a page; 502 when the tasks can't be had."""
        if self.path == "/health":
            self._answer(200, "well\n")
            return
        try:
            with urlopen(TASKS_URL, timeout=TIMEOUT_S) as answer:  # noqa: S310 (a URL of ours)
                self._answer(200, page(json.load(answer)))
        except (URLError, OSError) as error:
            self._answer(502, f"no tasks: {error}\n")

    def _answer(self, status: int, text: str) -> None:
        body = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8081"))), Report).serve_forever()
