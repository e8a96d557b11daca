# SPDX-License-Identifier: Apache-2.0
"""A small REST API of the standard library alone: a list of tasks, as JSON.

    GET    /tasks          all tasks; ?done=true or ?done=false picks some
    POST   /tasks          {"title": "..."} makes one: 201, with its place in Location
    GET    /tasks/1        one task
    PATCH  /tasks/1        {"title": "...", "done": true} changes what is given
    DELETE /tasks/1        204

What is wrong is told as {"error": "..."} with 400, 404, 405 or 415. The tasks are in memory: they
are there after each restore as they were at the deploy, and later changes end with the process.
Give the function ``idle_after_ms: 0``, or write them elsewhere, to keep them.
"""

from __future__ import annotations

import json
import os
import re
import threading
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from itertools import count
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, urlsplit

if TYPE_CHECKING:
    from collections.abc import Callable

LONGEST_BODY = 64 << 10  # bytes
FIELDS = {"title": str, "done": bool}
WORDS = {"true": True, "false": False}
Task = dict[str, Any]


class ProblemError(Exception):
    """A request that can't be served; its status and words are the answer."""

    def __init__(self, status: HTTPStatus, words: str) -> None:
        super().__init__(words)
        self.status = status


class Tasks:
    """The tasks, for many threads."""

    def __init__(self, *titles: str) -> None:
        self._lock = threading.Lock()
        self._numbers = count(1)
        self._tasks: dict[int, Task] = {}
        for title in titles:
            self.add({"title": title})

    def all(self, *, done: bool | None = None) -> list[Task]:
        """Return the tasks, or those that are done, or not."""
        with self._lock:
            return [task for task in self._tasks.values() if done in (None, task["done"])]

    def get(self, number: int) -> Task:
        """Return one task."""
        with self._lock:
            return self._find(number)

    def add(self, fields: Task) -> Task:
        """Make a task."""
        if not fields.get("title"):
            raise ProblemError(HTTPStatus.BAD_REQUEST, "a task needs a title")
        with self._lock:
            task = {"id": next(self._numbers), "done": False, **fields}
            self._tasks[task["id"]] = task
            return task

    def change(self, number: int, fields: Task) -> Task:
        """Change some of a task's fields."""
        with self._lock:
            task = self._tasks[number] = {**self._find(number), **fields}
            return task

    def remove(self, number: int) -> None:
        """Remove a task."""
        with self._lock:
            del self._tasks[self._find(number)["id"]]

    def _find(self, number: int) -> Task:
        if number not in self._tasks:
            raise ProblemError(HTTPStatus.NOT_FOUND, f"there is no task {number}")
        return self._tasks[number]


class Api(BaseHTTPRequestHandler):
    """Turns requests into calls of the tasks, and what they return into JSON."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True  # head and body are two writes: the second must not wait 40 ms

    def do_GET(self) -> None:
        """Answer a GET."""
        self._serve({"/tasks": self._list, "/tasks/": self._show})

    def do_POST(self) -> None:
        """Answer a POST."""
        self._serve({"/tasks": self._make})

    def do_PATCH(self) -> None:
        """Answer a PATCH."""
        self._serve({"/tasks/": self._change})

    def do_DELETE(self) -> None:
        """Answer a DELETE."""
        self._serve({"/tasks/": self._remove})

    def _serve(self, routes: dict[str, Callable[..., None]]) -> None:
        """Call what serves the path; answer a problem in its own words."""
        try:
            serve, numbers = self._route(routes)
            serve(*numbers)
        except ProblemError as problem:
            self.close_connection = True  # a body may not have been read
            self._answer(problem.status, {"error": str(problem)}, Connection="close")

    def _route(
        self, routes: dict[str, Callable[..., None]]
    ) -> tuple[Callable[..., None], list[int]]:
        """Return what serves the path, and the number in it."""
        match = re.fullmatch(r"/tasks(?:/(\d+))?/?", urlsplit(self.path).path)
        if not match:
            raise ProblemError(HTTPStatus.NOT_FOUND, "try /tasks")
        place = "/tasks/" if match[1] else "/tasks"
        if place not in routes:
            raise ProblemError(HTTPStatus.METHOD_NOT_ALLOWED, f"no {self.command} here")
        return routes[place], [int(match[1])] if match[1] else []

    def _list(self) -> None:
        word = parse_qs(urlsplit(self.path).query).get("done", [""])[0]
        if word and word not in WORDS:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "done is true or false")
        self._answer(HTTPStatus.OK, TASKS.all(done=WORDS.get(word)))

    def _show(self, number: int) -> None:
        self._answer(HTTPStatus.OK, TASKS.get(number))

    def _make(self) -> None:
        task = TASKS.add(self._fields())
        self._answer(HTTPStatus.CREATED, task, Location=f"/tasks/{task['id']}")

    def _change(self, number: int) -> None:
        self._answer(HTTPStatus.OK, TASKS.change(number, self._fields()))

    def _remove(self, number: int) -> None:
        TASKS.remove(number)
        self._answer(HTTPStatus.NO_CONTENT)

    def _fields(self) -> Task:
        """Return the request's body, when it is an object of fields that a task has."""
        if self.headers.get_content_type() != "application/json":
            raise ProblemError(HTTPStatus.UNSUPPORTED_MEDIA_TYPE, "send application/json")
        length = self.headers.get("Content-Length", "")
        if not length.isdigit() or int(length) > LONGEST_BODY:
            raise ProblemError(HTTPStatus.BAD_REQUEST, f"at most {LONGEST_BODY} bytes")
        try:
            fields = json.loads(self.rfile.read(int(length)))
        except ValueError:
            raise ProblemError(HTTPStatus.BAD_REQUEST, "that is not JSON") from None
        if not isinstance(fields, dict) or any(
            not isinstance(value, FIELDS.get(name, ())) for name, value in fields.items()
        ):
            raise ProblemError(HTTPStatus.BAD_REQUEST, "a task has a title (text) and done (truth)")
        return fields

    def _answer(self, status: HTTPStatus, value: Any = None, **headers: str) -> None:
        body = b"" if value is None else json.dumps(value).encode() + b"\n"
        self.send_response(status)
        for name, text in headers.items():
            self.send_header(name, text)
        if body:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


TASKS = Tasks("read docs/configuration.md", "deploy a function")

if __name__ == "__main__":
    ThreadingHTTPServer(("", int(os.environ.get("PORT", "8080"))), Api).serve_forever()
