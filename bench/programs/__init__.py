# SPDX-License-Identifier: Apache-2.0
"""The programs whose first answers are measured, each with the times promised for it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from bench import REPOSITORY
from framework.mesh import Function
from framework.programs import handler

if TYPE_CHECKING:
    from pathlib import Path

HEAP = REPOSITORY / "bench" / "programs" / "heap.py"


@dataclass(frozen=True)
class Program:
    """A handler and what is promised of its wakes.

    Arguments:
        id: Its function's id, and its name in the results.
        title: What the tables call it.
        handler: Its name for ``framework.programs.handler``; empty for the heap program.
        p50_ms: The promised median from connect to the first byte; None for none.
        p99_ms: The promised 99th percentile; None for none.
        of_hello: The promised median as a multiple of hello.py's in the same run.
        memory_mb: The memory limit.
        environment: What its function declares.
    """

    id: str
    title: str
    handler: str = ""
    p50_ms: float | None = None
    p99_ms: float | None = None
    of_hello: float | None = None
    memory_mb: int = 512
    environment: dict[str, str] = field(default_factory=dict)

    def path(self) -> Path:
        """Return the handler's path, built when it has to be."""
        return handler(self.handler) if self.handler else HEAP

    def function(self) -> Function:
        """Return it as a function with a free port."""
        keys = {"environment": self.environment} if self.environment else {}
        return Function(self.id, self.path(), memory_mb=self.memory_mb, keys=keys)


def heap(mebibytes: int, of_hello: float) -> Program:
    """Return hello.py with that much memory of its own, all of it written."""
    size = f"{mebibytes >> 10} GB" if mebibytes >= 1 << 10 else f"{mebibytes} MB"
    return Program(
        id=f"heap-{mebibytes}",
        title=f"Python with a heap of {size}",
        of_hello=of_hello,
        memory_mb=mebibytes + 512,
        environment={"HEAP_MB": str(mebibytes)},
    )


PROGRAMS = (
    Program("hello", "examples/hello.py", "hello", p50_ms=10, p99_ms=20),
    Program("node", "Node.js http", "node", p50_ms=12),
    Program("go", "Go net/http", "go", p50_ms=9),
    Program("rust", "Rust, standard library", "rust"),
    Program("flask", "Flask under gunicorn, two workers", "flask", p50_ms=30),
    Program("fastapi", "FastAPI under uvicorn", "fastapi", p50_ms=25),
    Program("django", "Django under gunicorn, SQLite", "django", p50_ms=35),
    Program("express", "Express", "express"),
    Program("jvm", "JVM HTTP server", "jvm", p50_ms=35),
    heap(200, 1.3),
    heap(2048, 1.6),
)
