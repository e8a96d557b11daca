# SPDX-License-Identifier: Apache-2.0
"""The tests' programs: what each is, and where its handler lies once it is built."""

from __future__ import annotations

import fcntl
import hashlib
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

from . import builders

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "tests" / "programs"
BUILT = REPOSITORY / "build" / "test-programs"
STAMP = ".built-from"


@dataclass(frozen=True)
class Program:
    """A program of tests/programs that needs more than a word to deploy.

    Arguments:
        file: Its handler, in its folder.
        build: Builds the folder into another one; None when it runs as it lies there.
        memory_mb: The memory limit that suits it, in MiB.
        keys: Further keys of its entry in a configuration.
        source: Its folder in tests/programs; the program's own name by default.
        varies: Those of count, pid and parent that differ from one of its workers to another.
    """

    file: str
    build: Callable[[Path, Path], None] | None = None
    memory_mb: int = 256
    keys: dict[str, Any] = field(default_factory=dict)
    source: str = ""
    varies: frozenset[str] = frozenset()


PID = frozenset({"pid"})
NGINX = builders.debian("nginx")
PROGRAMS = {
    "node": Program("server.js"),
    "go": Program("counter", builders.go),
    "closer": Program("closer", builders.static_c),
    "flask": Program("serve.py", builders.python, varies=frozenset({"count", "pid"})),
    "fastapi": Program("serve.sh", builders.python),
    "django": Program("serve.sh", builders.python),
    "express": Program("server.js", builders.npm),
    "jvm": Program("serve.sh", builders.java, memory_mb=512),
    "rust": Program("server", builders.rust),
    "grpc": Program("serve.py", builders.python, keys={"warmup": "tcp"}),
    "nginx": Program("serve.sh", NGINX, varies=PID),
    "nginx-container": Program(
        "serve.sh", NGINX, keys={"capabilities": "container"}, source="nginx", varies=PID
    ),
    "files": Program("files.py", builders.with_database),
    "redis": Program("serve.sh", builders.debian("redis-server", "redis-tools")),
}


def program(name: str) -> Program:
    """Return what a program is; the plain ones are a Python file named like their folder."""
    return PROGRAMS.get(name, Program(f"{Path(name).name}.py"))


def digest(folder: Path) -> str:
    """Return the digest of a folder's files, by name and content."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return state.hexdigest()


def built(name: str) -> Path:
    """Return the folder of a program, built when its sources changed.

    Raises:
        RuntimeError: a build step failed; with its words.
    """
    name, build = program(name).source or name, program(name).build
    source, target = SOURCES / name, BUILT / name
    if build is None:
        return source
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = target / STAMP
        if not stamp.exists() or stamp.read_text() != digest(source):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            build(source, target)
            stamp.write_text(digest(source))
    return target


def handler(name: str) -> Path:
    """Return the absolute path of a program's handler.

    Arguments:
        name: ``hello`` is examples/hello.py, ``bad/x`` a bad program, others are in tests/programs.
    """
    if name == "hello":
        return REPOSITORY / "examples" / "hello.py"
    return built(name) / program(name).file
