# SPDX-License-Identifier: Apache-2.0
"""Programs that are started as any program is, and how long their first answer takes."""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from framework.clients import call
from framework.mesh import free_port

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping, Sequence

PYTHON = "/usr/bin/python3"
TIMEOUT_S = 60.0
PAUSE_S = 0.0002


def first_byte_s(port: int, began: float) -> float:
    """Call until the first answer; return the time since ``began``, in seconds."""
    while True:
        connected = time.monotonic()
        answer = call(port)
        if answer.ok:
            return connected - began + answer.first_byte_s
        if time.monotonic() - began > TIMEOUT_S:
            raise TimeoutError(f"port {port}: {answer.error or answer.status}")
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


class StartedProcess:
    """A program with a session of its own, ended with all of its group.

    Arguments:
        command: What is started.
        port: Where it will listen.
        environment: All of its environment.
    """

    def __init__(self, command: Sequence[str], port: int, environment: Mapping[str, str]) -> None:
        self.port = port
        self.began = time.monotonic()
        self.child = subprocess.Popen(
            command,
            env=environment,
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
        # SAFETY: the child is not reaped before the wait below, so its id is its group's, and
        # an id that fork returned to a parent is above 1.
        os.killpg(self.child.pid, signal.SIGKILL)
        self.child.wait(TIMEOUT_S)

    def first_byte_s(self) -> float:
        """Return the time from its start to the first byte of its first answer, in seconds."""
        return first_byte_s(self.port, self.began)


def interpreter_of(handler: Path) -> list[str]:
    """Return what runs a handler: the Python of its environment, Debian's, or itself."""
    if handler.suffix != ".py":
        return []
    environment = handler.parent / "pyvenv.cfg"
    return [str(handler.parent / "bin" / "python") if environment.exists() else PYTHON]


def plain_process(
    handler: Path, ready: Path, environment: Mapping[str, str] | None = None
) -> StartedProcess:
    """Start a handler on the host, on a port of its own, with what a sandbox would tell it.

    Arguments:
        handler: The handler's path.
        ready: The socket for READY.
        environment: What its function declares.
    """
    port = free_port()
    names = {"PORT", "AETHER_TRIGGER_PORT"}
    return StartedProcess(
        [*interpreter_of(handler), str(handler)],
        port,
        {
            "PATH": "/usr/bin:/bin",
            "HOME": str(ready.parent),
            "AETHER_SOCKET": str(ready),
            "AETHER_FUNCTION_ID": "plain",
            "GODEBUG": "multipathtcp=0",
            **dict.fromkeys(names, str(port)),
            **(environment or {}),
        },
    )
