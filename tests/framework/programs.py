# SPDX-License-Identifier: Apache-2.0
"""Builds the tests' programs from tests/programs/, once, into build/test-programs/."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

REPOSITORY = Path(__file__).resolve().parents[2]
SOURCES = REPOSITORY / "tests" / "programs"
BUILT = REPOSITORY / "build" / "test-programs"
SYSTEM_PYTHON = "/usr/bin/python3"
BUILD_TIMEOUT_S = 240
STAMP = ".built-from"


def run(*command: str | Path, folder: Path, **environment: str) -> None:
    """Run a build step; RuntimeError with its words when it fails."""
    done = subprocess.run(
        command,
        cwd=folder,
        env={**os.environ, **environment},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=BUILD_TIMEOUT_S,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"{command} -> {done.returncode}\n{done.stdout}")


def digest(folder: Path) -> str:
    """Return the digest of a folder's files, by name and content."""
    state = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        if path.is_file() and "__pycache__" not in path.parts:
            state.update(f"{path.relative_to(folder)}\0".encode() + path.read_bytes())
    return state.hexdigest()


def build_flask(source: Path, target: Path) -> None:
    """Make a venv that holds Flask and gunicorn, with the program at its top."""
    run(SYSTEM_PYTHON, "-m", "venv", target, folder=source)
    pip = target / "bin" / "pip"
    run(pip, "install", "--quiet", "--no-deps", "-r", source / "requirements.txt", folder=source)
    for name in ("serve.py", "app.py"):
        shutil.copy(source / name, target / name)


def build_go(source: Path, target: Path) -> None:
    """Build the Go server from the standard library alone."""
    run(
        "go", "build", "-o", target / "counter", ".",
        folder=source,
        CGO_ENABLED="0", GOFLAGS="-mod=mod", GOPROXY="off", GOCACHE=str(BUILT / ".go-cache"),
    )  # fmt: skip


def build_closer(source: Path, target: Path) -> None:
    """Build the C server, static."""
    output = target / "closer"
    run("gcc", "-O2", "-Wall", "-static", "-o", output, source / "closer.c", folder=source)


BUILDERS: dict[str, Callable[[Path, Path], None]] = {
    "flask": build_flask,
    "go": build_go,
    "closer": build_closer,
}


def built(name: str) -> Path:
    """Return the folder of a program, built when its sources changed.

    Raises:
        RuntimeError: a build step failed; with its words.
    """
    source, target = SOURCES / name, BUILT / name
    if name not in BUILDERS:
        return source
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f".{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        stamp = target / STAMP
        if not stamp.exists() or stamp.read_text() != digest(source):
            shutil.rmtree(target, ignore_errors=True)
            target.mkdir()
            BUILDERS[name](source, target)
            stamp.write_text(digest(source))
    return target


def handler(name: str) -> Path:
    """Return the absolute path of a program's handler.

    Arguments:
        name: ``hello`` is examples/hello.py, ``bad/x`` a bad program, others are in tests/programs.
    """
    if name == "hello":
        return REPOSITORY / "examples" / "hello.py"
    files = {"flask": "serve.py", "node": "server.js", "go": "counter", "closer": "closer"}
    folder = built(name)
    return folder / files.get(name, f"{folder.name}.py")
