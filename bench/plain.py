# SPDX-License-Identifier: Apache-2.0
"""The same handlers without a sandbox: started fresh, and restored by CRIU's command line."""

from __future__ import annotations

import contextlib
import os
import shutil
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from framework.clients import call
from framework.mesh import free_port
from framework.processes import Process, wait_until

from . import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Iterator

CRIU = REPOSITORY / ".prefix" / "lib" / "aetherless" / "criu"
PYTHON = "/usr/bin/python3"
TIMEOUT_S = 30.0
PAUSE_S = 0.0002


def first_byte_s(port: int, began: float) -> float:
    """Call until the first answer; return the time since ``began``, in seconds."""
    while True:
        connected = time.monotonic()
        answer = call(port)
        if answer.ok:
            return connected - began + answer.first_byte_s
        if time.monotonic() - began > TIMEOUT_S:
            raise TimeoutError(f"port {port}: {answer.error}")
        time.sleep(PAUSE_S)


@contextlib.contextmanager
def ready_socket() -> Iterator[Path]:
    """Offer the socket that a handler may send READY to."""
    folder = Path(tempfile.mkdtemp(prefix="aether-b", dir="/run"))
    try:
        with socket.socket(socket.AF_UNIX) as server:
            server.bind(str(folder / "ready"))
            server.listen(64)
            yield folder / "ready"
    finally:
        shutil.rmtree(folder)


class PlainProcess:
    """A handler that runs on the host as any program does, on a port of its own.

    Arguments:
        handler: The handler's path.
        ready: The socket for READY.
    """

    def __init__(self, handler: Path, ready: Path) -> None:
        self.port = free_port()
        interpreter = [PYTHON] if handler.suffix == ".py" else []
        names = {"PORT", "AETHER_TRIGGER_PORT"}
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            [*interpreter, str(handler)],
            env={
                "PATH": "/usr/bin:/bin",
                "AETHER_SOCKET": str(ready),
                "AETHER_FUNCTION_ID": "plain",
                "GODEBUG": "multipathtcp=0",
                **dict.fromkeys(names, str(self.port)),
            },
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """End it."""
        self.child.kill()
        self.child.wait(TIMEOUT_S)

    def first_byte_s(self) -> float:
        """Return the time from its start to the first byte of its first answer, in seconds."""
        return first_byte_s(self.port, self.began)


def fresh_start_ms(handler: Path, ready: Path) -> float:
    """Start a handler and return when its first byte came, in milliseconds."""
    with PlainProcess(handler, ready) as process:
        return process.first_byte_s() * 1000


class CommandLineRestore:
    """Restores of a plain handler by ``criu restore``, from a dump made by ``criu dump``.

    Arguments:
        handler: The handler's path.
        ready: The socket for READY.
    """

    def __init__(self, handler: Path, ready: Path) -> None:
        self.images = Path(tempfile.mkdtemp(prefix="aether-b", dir="/dev/shm"))
        process = PlainProcess(handler, ready)
        process.first_byte_s()
        self.port = process.port
        self.pid = process.child.pid
        done = self.criu("dump", "-t", str(self.pid))
        process.child.kill()
        process.child.wait(TIMEOUT_S)
        if done.returncode:
            self.close()
            raise RuntimeError(f"criu dump: {done.stdout[-2000:]}")

    def criu(self, action: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run CRIU on the images."""
        return subprocess.run(
            [str(CRIU), action, "-D", str(self.images), "-v1", "--tcp-close", *arguments],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=TIMEOUT_S,
            check=False,
        )

    def restore_ms(self) -> float:
        """Restore, call, end; return the time from the start to the first byte, in milliseconds."""
        began = time.monotonic()
        done = self.criu("restore", "--restore-detached")
        if done.returncode:
            raise RuntimeError(f"criu restore: {done.stdout[-2000:]}")
        took = first_byte_s(self.port, began) * 1000
        restored = Process.of(self.pid)
        restored.kill()
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), "the id is free again")
        return took

    def close(self) -> None:
        """Remove the images."""
        shutil.rmtree(self.images)


def is_available() -> bool:
    """Say whether set-up has built CRIU and this is root."""
    return CRIU.exists() and os.geteuid() == 0
