# SPDX-License-Identifier: Apache-2.0
"""The handler in a container: ``runc run``, and ``runc restore`` with the CRIU that we use.

The bundle has the host's programs as read-only binds, namespaces for processes, mounts and IPC,
and the host's network, so that the numbers hold nothing of a network's making.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bench import CRIU
from bench.plain import PYTHON, TIMEOUT_S, first_byte_s
from framework.mesh import free_port

if TYPE_CHECKING:
    from bench.programs import Program

BINDS = {"/usr": "/usr", "/bin": "/usr/bin", "/lib": "/usr/lib", "/lib64": "/usr/lib64"}


def bind(target: str, source: str) -> dict[str, Any]:
    """Return a read-only bind mount of an OCI bundle."""
    return {
        "destination": target,
        "type": "bind",
        "source": source,
        "options": ["rbind", "ro"],
    }


def bundle_config(handler: Path, port: int, group: str) -> dict[str, Any]:
    """Return the config.json of a bundle that runs a handler."""
    mounts = [{"destination": "/proc", "type": "proc", "source": "proc"}]
    mounts += [{"destination": "/dev", "type": "tmpfs", "source": "tmpfs"}]
    mounts += [bind(target, source) for target, source in BINDS.items()]
    return {
        "ociVersion": "1.0.2",
        "process": {
            "user": {"uid": 0, "gid": 0},
            "args": [PYTHON, f"/app/{handler.name}"],
            "env": ["PATH=/usr/bin:/bin", f"PORT={port}", f"AETHER_TRIGGER_PORT={port}"],
            "cwd": "/",
            "noNewPrivileges": True,
        },
        "root": {"path": "rootfs"},
        "mounts": [*mounts, bind("/app", str(handler.parent))],
        "linux": {
            "namespaces": [{"type": kind} for kind in ("pid", "ipc", "mount")],
            "cgroupsPath": f"/{group}",
        },
    }


class RuncRun:
    """A container started for each answer.

    Arguments:
        program: The handler; a Python file that needs nothing beside itself.
    """

    def __init__(self, program: Program) -> None:
        self.home = Path(tempfile.mkdtemp(prefix="aether-b", dir="/dev/shm"))
        self.port = free_port()
        self.bundle = self.home / "bundle"
        (self.bundle / "rootfs").mkdir(parents=True)
        config = bundle_config(program.path(), self.port, self.home.name)
        (self.bundle / "config.json").write_text(json.dumps(config))
        self.count = 0

    def runc(self, action: str, *arguments: str) -> None:
        """Run runc with pipes for its streams, which a checkpoint can carry.

        Raises:
            RuntimeError: runc failed; with its words.
        """
        reader, writer = os.pipe()
        command = ["runc", "--root", str(self.home / "state"), "--criu", str(CRIU), action]
        try:
            done = subprocess.run(
                [*command, *arguments],
                stdin=reader,
                stdout=writer,
                stderr=writer,
                timeout=TIMEOUT_S,
                check=False,
            )
            os.set_blocking(reader, False)
            said = os.read(reader, 4096) if done.returncode else b""
        finally:
            os.close(reader)
            os.close(writer)
        if done.returncode:
            raise RuntimeError(f"runc {action}: {said.decode(errors='replace')}")

    def start(self, name: str) -> None:
        """Bring the container up."""
        self.runc("run", "--detach", "--bundle", str(self.bundle), name)

    def first_byte_ms(self) -> float:
        """Start, call, end; return the time from the start to the first byte, in milliseconds."""
        self.count += 1
        name = f"{self.home.name}-{self.count}"
        began = time.monotonic()
        self.start(name)
        took = first_byte_s(self.port, began) * 1000
        self.runc("delete", "--force", name)
        return took

    def close(self) -> None:
        """Remove the bundle."""
        shutil.rmtree(self.home)


class RuncRestore(RuncRun):
    """A container restored for each answer, from a checkpoint made by ``runc checkpoint``."""

    def __init__(self, program: Program) -> None:
        super().__init__(program)
        self.images = self.home / "images"
        super().start("golden")
        first_byte_s(self.port, time.monotonic())
        self.runc("checkpoint", "--tcp-established", "--image-path", str(self.images), "golden")

    def start(self, name: str) -> None:
        """Restore the container."""
        self.runc(
            "restore", "--detach", "--tcp-established",
            "--image-path", str(self.images), "--bundle", str(self.bundle), name,
        )  # fmt: skip
