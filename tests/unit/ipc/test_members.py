# SPDX-License-Identifier: Apache-2.0
"""Which control groups belong to an instance, and who is at the end of a socket."""

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
    ("cgroup", "instance", "member"),
    [
        ("/aether-0123ab/f-r1-0/tree", "f-r1-0", True),
        ("/aether-0123ab/f-r12-golden/tree/deeper", "f-r12-golden", True),
        ("/aether-0123ab/f-r1-3", "f-r1-3", True),
        ("/aether-0123ab/f-r1-3", "f-r1-0", False),
        ("/aether-0123ab/ff-r1-0/tree", "f-r1-0", False),
        ("/aether-0123ab/f-r1-0", "F-r1-0", False),
        ("/aether-0123ab/f-r1-0\n", "f-r1-0", False),
        ("/aether-0123ab/f-r1-", "f-r1-0", False),
        ("/aether-0123ab", "f-r1-0", False),
        ("/", "f-r1-0", False),
        ("", "f-r1-0", False),
        ("/x/aether-0123ab/f-r1-0/tree", "f-r1-0", False),
        ("/../aether-0123ab/f-r1-0", "f-r1-0", False),
        ("/aether-0123abc/f-r1-0/tree", "f-r1-0", False),
        ("aether-0123ab/f-r1-0/tree", "f-r1-0", False),
    ],
)
def test_membership(cgroup: str, instance: str, *, member: bool) -> None:
    """Only the orchestrator's own group, and in it only this very instance."""
    assert is_member(cgroup, OWNER, instance) is member


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
