# SPDX-License-Identifier: Apache-2.0
"""How a program's folder is built into another one, by the tools of its language."""

from __future__ import annotations

import os
import shutil
import sqlite3
import subprocess
from contextlib import closing
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

SYSTEM_PYTHON = "/usr/bin/python3"
BUILD_TIMEOUT_S = 240
GO_CACHE = ".go-cache"


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


def copy(source: Path, target: Path) -> None:
    """Copy a program's sources into the folder where it runs."""
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(source, target, dirs_exist_ok=True, ignore=ignored)


def python(source: Path, target: Path) -> None:
    """Make a venv with what requirements.txt names, and the program at its top."""
    run(SYSTEM_PYTHON, "-m", "venv", target, folder=source)
    pip = target / "bin" / "pip"
    run(pip, "install", "--quiet", "--no-deps", "-r", source / "requirements.txt", folder=source)
    copy(source, target)


def with_database(source: Path, target: Path) -> None:
    """Ship an SQLite database of one row beside the program."""
    copy(source, target)
    (target / "data").mkdir()
    with closing(sqlite3.connect(target / "data" / "shipped.sqlite3")) as database, database:
        database.execute("CREATE TABLE visits (number INTEGER)")
        database.execute("INSERT INTO visits VALUES (0)")


def npm(source: Path, target: Path) -> None:
    """Install what package-lock.json names beside the program."""
    copy(source, target)
    run("npm", "ci", "--silent", "--ignore-scripts", "--no-audit", "--no-fund", folder=target)


def debian(*packages: str) -> Callable[[Path, Path], None]:
    """Return a builder that unpacks Debian's packages beside the program.

    They are not installed: an installed server would also be started with the host.
    """

    def build(source: Path, target: Path) -> None:
        copy(source, target)
        run("apt-get", "download", "-q", *packages, folder=target)
        for package in target.glob("*.deb"):
            run("dpkg-deb", "--extract", package, target, folder=target)
            package.unlink()

    return build


def go(source: Path, target: Path) -> None:
    """Build a Go server from the standard library alone."""
    run(
        "go", "build", "-o", target / "counter", ".",
        folder=source,
        CGO_ENABLED="0", GOFLAGS="-mod=mod", GOPROXY="off", GOCACHE=str(target.parent / GO_CACHE),
    )  # fmt: skip


def java(source: Path, target: Path) -> None:
    """Compile a Java server beside the script that runs it."""
    copy(source, target)
    run("javac", "--release", "17", "-d", target, source / "Server.java", folder=source)


def rust(source: Path, target: Path) -> None:
    """Compile a Rust server from the standard library alone."""
    run("rustc", "-O", "-o", target / "server", source / "server.rs", folder=source)


def static_c(source: Path, target: Path) -> None:
    """Build a C server, static."""
    output = target / source.name
    run("gcc", "-O2", "-Wall", "-static", "-o", output, source / f"{source.name}.c", folder=source)
