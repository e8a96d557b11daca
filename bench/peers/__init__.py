# SPDX-License-Identifier: Apache-2.0
"""Other ways to a first answer, measured beside ours: each starts, answers once and ends."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Protocol

from .criu import CriuRestore
from .fresh import FreshStart, functions_framework_node, functions_framework_python, workerd
from .runc import RuncRestore, RuncRun

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from bench.programs import Program


class Peer(Protocol):
    """One way to a first answer."""

    def first_byte_ms(self) -> float:
        """Start, call, end; return the time from the start to the first byte, in milliseconds."""

    def close(self) -> None:
        """Remove what it keeps between two runs."""


# What the tables call them. ``fresh`` is measured for every program, the others for hello.py.
TITLES = {
    "fresh": "the same handler started fresh",
    "criu_restore": "`criu restore` by its command line",
    "runc_run": "`runc run` of the same handler",
    "runc_restore": "`runc restore` of the same handler",
    "functions_framework_python": "functions-framework for Python (PyPI), a hello function",
    "functions_framework_node": "functions-framework for Node.js (npm), a hello function",
    "workerd": "workerd (npm), a hello worker",
}


def makers(program: Program, ready: Path) -> dict[str, Callable[[], Peer]]:
    """Return how to make each peer of a program.

    Arguments:
        program: What is started.
        ready: The socket for READY.
    """
    fresh: dict[str, Callable[[], Peer]] = {"fresh": lambda: FreshStart(program, ready)}
    if program.id != "hello":
        return fresh
    return fresh | {
        "criu_restore": lambda: CriuRestore(program, ready),
        "runc_run": lambda: RuncRun(program),
        "runc_restore": lambda: RuncRestore(program),
        "functions_framework_python": functions_framework_python,
        "functions_framework_node": functions_framework_node,
        "workerd": workerd,
    }


@contextlib.contextmanager
def peers_of(program: Program, ready: Path) -> Iterator[dict[str, Peer]]:
    """Make the peers of a program, and remove them at the end."""
    with contextlib.ExitStack() as stack:
        made = {}
        for name, make in makers(program, ready).items():
            made[name] = stack.enter_context(contextlib.closing(make()))
        yield made
