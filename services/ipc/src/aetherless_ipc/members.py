# SPDX-License-Identifier: Apache-2.0
"""Who is at the other end of a side socket: told by the kernel, never by the peer."""

from __future__ import annotations

import os
import select
import socket
import struct
from dataclasses import dataclass

from aetherless_common.cgroups import cgroup_of

SO_PEERPIDFD = 77  # asm-generic/socket.h, since 6.5; not in Python's socket yet
UCRED = struct.Struct("iII")


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected: its pid as this service sees it, its v2 control group."""

    pid: int
    cgroup: str


def identify(connection: socket.socket) -> Peer | None:
    """Return the process that connected, or None when it is gone or can't be seen from here.

    The pid comes from SO_PEERCRED. The pidfd of the same moment (SO_PEERPIDFD) proves, after its
    control group was read, that the number was not given to another process meanwhile.
    """
    pid, _, _ = UCRED.unpack(
        connection.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, UCRED.size)
    )
    # SAFETY: nothing is signalled here; 0 means a process outside our pid namespace.
    if pid <= 1:
        return None
    try:
        pidfd = connection.getsockopt(socket.SOL_SOCKET, SO_PEERPIDFD)
        try:
            cgroup = cgroup_of(pid)
            ended, _, _ = select.select([pidfd], [], [], 0)
        finally:
            os.close(pidfd)
    except OSError:
        return None
    return None if ended else Peer(pid, cgroup)


def is_member(cgroup: str, orchestrator_cgroup: str, instance: str) -> bool:
    """Tell whether a control group is that of an instance, or lies in it.

    It has the instance's name, below the orchestrator's group.
    """
    return [*cgroup.split("/"), "", ""][:3] == ["", orchestrator_cgroup, instance]
