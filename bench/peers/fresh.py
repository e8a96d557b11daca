# SPDX-License-Identifier: Apache-2.0
"""A process started for each first answer: the handler itself, or another runtime's hello."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from bench import INSTALLED, REPOSITORY
from bench.plain import StartedProcess, plain_process
from framework.mesh import free_port

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from bench.programs import Program

SOURCES = REPOSITORY / "bench" / "peers" / "hello"
MODULES = INSTALLED / "node_modules"


class FreshStart:
    """A handler without a sandbox.

    Arguments:
        program: The handler.
        ready: The socket for READY.
    """

    def __init__(self, program: Program, ready: Path) -> None:
        self.program = program
        self.ready = ready

    def first_byte_ms(self) -> float:
        """Start, call, end; return the time from the start to the first byte, in milliseconds."""
        program = self.program
        with plain_process(program.path(), self.ready, program.environment) as process:
            return process.first_byte_s() * 1000

    def close(self) -> None:
        """Nothing is kept."""


class Runtime:
    """Another project's runtime with a hello function of its own kind.

    Arguments:
        command: Its command line for a port.
    """

    def __init__(self, command: Callable[[int], list[str]]) -> None:
        self.command = command

    def first_byte_ms(self) -> float:
        """Start, call, end; return the time from the start to the first byte, in milliseconds."""
        port = free_port()
        environment = {"PATH": os.environ["PATH"], "HOME": str(INSTALLED), "PORT": str(port)}
        with StartedProcess(self.command(port), port, environment) as process:
            return process.first_byte_s() * 1000

    def close(self) -> None:
        """Nothing is kept."""


def functions_framework_python() -> Runtime:
    """Return Google's functions framework for Python."""
    program = INSTALLED / "venv" / "bin" / "functions-framework"
    source = SOURCES / "function.py"
    return Runtime(
        lambda port: [
            str(program),
            "--target",
            "hello",
            "--source",
            str(source),
            "--port",
            str(port),
        ]
    )


def functions_framework_node() -> Runtime:
    """Return Google's functions framework for Node.js, on the interpreter without npm's wrapper."""
    program = MODULES / "@google-cloud" / "functions-framework" / "build" / "src" / "main.js"
    source = SOURCES / "function.js"
    return Runtime(
        lambda port: [
            "node",
            str(program),
            "--target=hello",
            f"--source={source}",
            f"--port={port}",
        ]
    )


def workerd() -> Runtime:
    """Return Cloudflare's workerd: the binary itself, without npm's wrapper."""
    program = next(MODULES.glob("@cloudflare/workerd-linux-*/bin/workerd"))
    source = SOURCES / "worker.capnp"
    return Runtime(
        lambda port: [str(program), "serve", str(source), f"--socket-addr=http=127.0.0.1:{port}"]
    )
