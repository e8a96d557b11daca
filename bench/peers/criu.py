# SPDX-License-Identifier: Apache-2.0
"""Restores by ``criu restore``, from a dump of the plain handler made by ``criu dump``."""

from __future__ import annotations

import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import TYPE_CHECKING

from bench import CRIU
from bench.plain import TIMEOUT_S, first_byte_s, plain_process
from framework.processes import Process, wait_until

if TYPE_CHECKING:
    from bench.programs import Program


class CriuRestore:
    """CRIU's command line with its default options; the images lie in memory, as ours do.

    Arguments:
        program: The handler.
        ready: The socket for READY.
    """

    def __init__(self, program: Program, ready: Path) -> None:
        self.images = Path(tempfile.mkdtemp(prefix="aether-b", dir="/dev/shm"))
        with plain_process(program.path(), ready, program.environment) as process:
            process.first_byte_s()
            self.port = process.port
            self.pid = process.child.pid
            done = self.criu("dump", "-t", str(self.pid), "--leave-stopped")
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

    def first_byte_ms(self) -> float:
        """Restore, call, end; return the time from the start to the first byte, in milliseconds."""
        began = time.monotonic()
        done = self.criu("restore", "--restore-detached")
        if done.returncode:
            raise RuntimeError(f"criu restore: {done.stdout[-2000:]}")
        took = first_byte_s(self.port, began) * 1000
        Process.of(self.pid).kill()
        wait_until(lambda: not Path(f"/proc/{self.pid}").exists(), "the id is free again")
        return took

    def close(self) -> None:
        """Remove the images."""
        shutil.rmtree(self.images)
