# SPDX-License-Identifier: Apache-2.0
"""Which control groups belong to a function, and who is at the end of a socket."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aetherless_common.cgroups import cgroup_of
from aetherless_ipc.members import Peer, identify, is_member

if TYPE_CHECKING:
    from pathlib import Path

OWNER = "aether-0123ab"


@pytest.mark.parametrize(
    ("cgroup", "function", "member"),
    [
        ("/aether-0123ab/f-r1-0/tree", "f", True),
        ("/aether-0123ab/f-r12-golden/tree/deeper", "f", True),
        ("/aether-0123ab/f-r1-3", "f", True),
        ("/aether-0123ab/a-r1-0-r1-0/tree", "a-r1-0", True),
        ("/aether-0123ab/a-r1-0-r1-0/tree", "a", False),
        ("/aether-0123ab/ff-r1-0/tree", "f", False),
        ("/aether-0123ab/f-r1-0", "F", False),
        ("/aether-0123ab/f-r1-0\n", "f", False),
        ("/aether-0123ab/f-r1-", "f", False),
        ("/aether-0123ab", "f", False),
        ("/", "f", False),
        ("", "f", False),
        ("/x/aether-0123ab/f-r1-0/tree", "f", False),
        ("/../aether-0123ab/f-r1-0", "f", False),
        ("/aether-0123abc/f-r1-0/tree", "f", False),
        ("aether-0123ab/f-r1-0/tree", "f", False),
    ],
)
def test_membership(cgroup: str, function: str, *, member: bool) -> None:
    """Only the orchestrator's own group, and in it only instances of this very function."""
    assert is_member(cgroup, OWNER, function) is member


def test_identify_a_living_process() -> None:
    """The kernel names this process, in its group."""
    here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    with here, there:
        assert identify(here) == Peer(os.getpid(), cgroup_of(os.getpid()))


def test_a_peer_that_ended_is_nobody(tmp_path: Path) -> None:
    """It connected and died, but another holds its socket open: the pid proves nothing now."""
    path = tmp_path / "s"
    with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as listener:
        listener.bind(str(path))
        listener.listen()
        code = (
            "import os,socket,sys,time\n"
            "s = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)\n"
            "s.connect(sys.argv[1])\n"
            "if os.fork() == 0: s.recv(1)\n"
        )
        subprocess.run([sys.executable, "-c", code, str(path)], check=True, timeout=20)
        connection, _ = listener.accept()
        with connection:
            assert identify(connection) is None
