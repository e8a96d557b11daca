# SPDX-License-Identifier: Apache-2.0
"""How much is read of what a process holds, however much that is."""

from __future__ import annotations

import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import holdings

if TYPE_CHECKING:
    from collections.abc import Iterator

pytestmark = pytest.mark.root

LIMIT = 600
NOTHING = "kept = None"
DESCRIPTORS = "kept = [os.eventfd(0) for _ in range(900)]"
MAPPINGS = """
kept = [mmap.mmap(-1, 4096, prot=1 + number % 2 * 2) for number in range(900)]
"""
SOCKETS = """
kept = [socket.socket(socket.AF_UNIX) for _ in range(900)]
[each.bind("") for each in kept]
"""
TARGETS = """
event, kept = os.eventfd(0), select.epoll()
for number in range(500, 1400):
    os.dup2(event, number)
    kept.register(number)
os.closerange(500, 1400)
"""


@contextmanager
def holding(code: str) -> Iterator[int]:
    """Give the id of a process, in a network namespace of its own, that holds what code says."""
    prologue = "import mmap, os, resource, select, socket, sys; "
    prologue += "resource.setrlimit(resource.RLIMIT_NOFILE, (2000, 2000))\n"
    program = f"{prologue}{code}\nprint(flush=True)\nsys.stdin.read()"
    command = ["unshare", "-n", sys.executable, "-c", program]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == b"\n"
        yield process.pid
        process.communicate(timeout=10)


def read(code: str) -> holdings.Holdings:
    """Read what a process holds that does what code says."""
    with holding(code) as pid:
        return holdings.read(pid, Path(f"/proc/{pid}/ns/net"))


@pytest.fixture(autouse=True)
def _limit(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look at little."""
    monkeypatch.setattr(holdings, "LIMIT", LIMIT)


def test_what_is_usual_is_read_whole() -> None:
    """A program with a few of each."""
    held = read(NOTHING)
    assert held.complete
    (process,) = held.processes
    assert {each.number for each in process.descriptors} >= {0, 1, 2}
    assert any(each.link.endswith("libc.so.6") for each in process.mappings)


@pytest.mark.parametrize("code", [DESCRIPTORS, MAPPINGS, SOCKETS, TARGETS])
def test_no_more_is_read_than_is_counted(code: str) -> None:
    """Descriptors, mappings, sockets, and what one descriptor watches: all of them count."""
    held = read(code)
    assert not held.complete
    (process,) = held.processes
    lines = sum(max(0, len(each.info) - 16) for each in process.descriptors)
    assert len(process.descriptors) + len(process.mappings) + len(held.unix) + lines <= LIMIT
