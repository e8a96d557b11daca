# SPDX-License-Identifier: Apache-2.0
"""The client libraries' peers: the same small program in each language, built and run."""

from __future__ import annotations

import fcntl
import hashlib
import os
import shutil
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from . import builders
from .programs import BUILT, REPOSITORY, SOURCES, STAMP, digest

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator, Sequence

CLIENTS = REPOSITORY / "clients"
RING = REPOSITORY / "services" / "ipc" / "ring" / "native"
PEERS = SOURCES / "channel"
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
C_FLAGS = ("-std=c11", "-O2", "-Wall", "-Wextra", "-Werror", "-pedantic", *SANITIZERS)


def _c(target: Path) -> None:
    header = CLIENTS / "c" / "single_header.py"
    builders.run(sys.executable, header, target / "aetherless.h", folder=target)
    output = ("-o", target / "peer", PEERS / "peer.c")
    builders.run("gcc", *C_FLAGS, f"-I{target}", *output, folder=target)


def _go(target: Path) -> None:
    builders.run(
        "go", "build", "-o", target / "peer", ".",
        folder=PEERS / "go",
        CGO_ENABLED="0", GOFLAGS="-mod=mod", GOPROXY="off",
        GOCACHE=str(target.parent / builders.GO_CACHE),
    )  # fmt: skip


def _node(target: Path) -> None:
    """Copy the package, with its addon where node-gyp would put it."""
    ignored = shutil.ignore_patterns("build", "node_modules")
    shutil.copytree(CLIENTS / "node", target / "client", ignore=ignored)
    shutil.copy(PEERS / "peer.js", target)
    build_addon(target / "client")


def build_addon(package: Path) -> None:
    """Compile a copy of the Node client's addon."""
    addon = package / "build" / "Release" / "aetherless.node"
    addon.parent.mkdir(parents=True)
    node = Path(shutil.which("node") or "node").resolve()
    headers = f"-I{node.parent.parent / 'include' / 'node'}"
    source = package / "native" / "addon.c"
    flags = ("-shared", "-fPIC", "-O2", "-Wall", "-Wextra", "-Werror", headers)
    builders.run("gcc", *flags, "-o", addon, source, folder=package)


def _python_reference(target: Path) -> None:
    """Copy the packages without the extension."""
    ring = REPOSITORY / "services" / "ipc" / "ring"
    ignored = shutil.ignore_patterns("*.so", "__pycache__")
    for source in (CLIENTS / "python", ring):
        shutil.copytree(source / "src", target, ignore=ignored, dirs_exist_ok=True)


def _rust(target: Path) -> None:
    """Build copies: cargo writes its lock beside the sources."""
    for folder in (CLIENTS / "rust", PEERS / "rust"):
        ignored = shutil.ignore_patterns("target", "Cargo.lock")
        copy = target / "sources" / folder.relative_to(REPOSITORY)
        shutil.copytree(folder, copy, ignore=ignored)
    output = {"CARGO_TARGET_DIR": str(target / "cargo")}
    builders.run("cargo", "build", "--quiet", "--release", folder=copy, **output)


# What is built, how, and the command that runs it; Python is not built, but for the client that
# goes without the ring's extension.
BUILDS: dict[str, Callable[[Path], None]] = {
    "c": _c,
    "go": _go,
    "node": _node,
    "python-reference": _python_reference,
    "rust": _rust,
}
COMMANDS: dict[str, tuple[str, ...]] = {
    "c": ("{built}/peer",),
    "go": ("{built}/peer",),
    "node": ("node", "{built}/peer.js"),
    "python": (sys.executable, "{peers}/peer.py"),
    "python-reference": ("env", "PYTHONPATH={built}", sys.executable, "{peers}/peer.py"),
    "rust": ("{built}/cargo/release/peer",),
}
LANGUAGES = tuple(COMMANDS)
# Those that call other functions and are stages of pipelines.
CALLERS = LANGUAGES
STAGES = LANGUAGES


def command(language: str) -> list[str]:
    """Return the command of a language's peer, built when its sources changed."""
    target = BUILT / f"channel-{language}"
    if language in BUILDS:
        _build(language, target)
    return [word.format(built=target, peers=PEERS) for word in COMMANDS[language]]


def _build(language: str, target: Path) -> None:
    folders = (CLIENTS / language.partition("-")[0], PEERS, RING.parent)
    sources = "".join(map(digest, folders))
    stamp, key = target / STAMP, hashlib.sha256(sources.encode()).hexdigest()
    BUILT.mkdir(parents=True, exist_ok=True)
    with (BUILT / f".{target.name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if stamp.exists() and stamp.read_text() == key:
            return
        shutil.rmtree(target, ignore_errors=True)
        target.mkdir()
        BUILDS[language](target)
        stamp.write_text(key)


@contextmanager
def running(
    language: str, *arguments: object, keep: Sequence[int] = (), **environment: str
) -> Iterator[subprocess.Popen[str]]:
    """Run a language's peer with pipes; it is killed at the end.

    Arguments:
        language: One of LANGUAGES.
        arguments: What its command line says.
        keep: Descriptors that it inherits.
        environment: Variables beside this process's own.
    """
    with subprocess.Popen(
        [*command(language), *map(str, arguments)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        pass_fds=keep,
        env={**os.environ, **environment},
    ) as process:
        try:
            yield process
        finally:
            process.kill()
