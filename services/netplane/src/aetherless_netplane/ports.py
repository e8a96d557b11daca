# SPDX-License-Identifier: Apache-2.0
"""Whether a trigger port is free on the host, and who has it when it is not."""

from __future__ import annotations

import errno
import re
import socket
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_netplane import errors

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
LISTEN = "0A"
SOCKET_LINK = re.compile(r"socket:\[(\d+)\]")
UNKNOWN = "a socket that does not listen, or another orchestrator"


@contextmanager
def held(port: int) -> Iterator[None]:
    """Hold a TCP port of the host, on all its addresses, while it is being reserved.

    Raises:
        FailedPrecondition: PORT_IN_USE, with the process that listens on it.
    """
    with ExitStack() as stack:
        for family, address in ((socket.AF_INET, "0.0.0.0"), (socket.AF_INET6, "::")):  # noqa: S104
            holder = stack.enter_context(socket.socket(family, socket.SOCK_STREAM))
            # Passes over connections of an earlier listener that wait in TIME_WAIT.
            holder.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            if family == socket.AF_INET6:
                holder.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
            try:
                holder.bind((address, port))
            except OSError as error:
                if error.errno != errno.EADDRINUSE:
                    raise
                raise errors.port_in_use(port, *listener_of(port)) from error
        yield


def listener_of(port: int) -> tuple[str, int | None]:
    """Return the name and pid of the process that listens on a port of this namespace."""
    inodes = {
        inode
        for name in ("tcp", "tcp6")
        for inode in listening(Path("/proc/thread-self/net", name).read_text(), port)
    }
    for pid in sorted(int(entry.name) for entry in PROC.iterdir() if entry.name.isdigit()):
        if inodes & _sockets_of(pid):
            return _name_of(pid), pid
    return UNKNOWN, None


def listening(table: str, port: int) -> set[str]:
    """Return the inodes of the sockets that listen on a port, from /proc/net/tcp or tcp6."""
    found = set()
    for line in table.splitlines()[1:]:
        fields = line.split()
        if fields[3] == LISTEN and int(fields[1].rpartition(":")[2], 16) == port:
            found.add(fields[9])
    return found


def _sockets_of(pid: int) -> set[str]:
    """Return the inodes of a process's sockets; none when it is gone."""
    found = set()
    try:
        for entry in (PROC / str(pid) / "fd").iterdir():
            if match := SOCKET_LINK.fullmatch(str(entry.readlink())):
                found.add(match[1])
    except OSError:
        return found
    return found


def _name_of(pid: int) -> str:
    try:
        return (PROC / str(pid) / "comm").read_text().strip()
    except OSError:
        return "a process that ended"
