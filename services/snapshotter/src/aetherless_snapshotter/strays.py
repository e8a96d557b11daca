# SPDX-License-Identifier: Apache-2.0
"""What a program made that its process tree does not hold, so that no checkpoint would have it.

A clone would come up without it and never say so; it is better not to be deployed.
"""

from __future__ import annotations

import ctypes
import os
import threading
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_snapshotter import processes
from aetherless_snapshotter.finding_kinds import REFUSED, Rule

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

_CLONE_NEWIPC = 0x08000000
_SYSTEM_V = {"shm": "shared memory", "sem": "semaphores", "msg": "message queues"}
_SHOWN = 5
_libc = ctypes.CDLL(None, use_errno=True)


def find(init_pid: int, root_pid: int, members: Iterable[int]) -> Iterator[Rule]:
    """Yield what a program has outside its tree.

    Args:
        init_pid: the sandbox's init, on this host.
        root_pid: the root of the program's tree, on this host.
        members: the processes of the sandbox's group for programs, on this host.

    Raises:
        OSError: the sandbox is gone.
    """
    inside = set(processes.tree(root_pid))
    names = sorted(_name(pid) for pid in members if pid not in inside)
    if names := [name for name in names if name]:
        yield Rule(
            "background-process",
            REFUSED,
            f"put {_listed(names)} into the background, out of its process tree",
            "keep every process a child of the handler (no daemonizing)",
        )
    if objects := _system_v_objects(init_pid):
        yield Rule(
            "system-v",
            REFUSED,
            f"has System V objects: {_listed(objects)}",
            "use POSIX shared memory and semaphores, or files",
        )


def _listed(names: list[str]) -> str:
    """Return the first of some names as text."""
    more = f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else ""
    return ", ".join(names[:_SHOWN]) + more


def _name(pid: int) -> str:
    """Return a process's command name; empty when it is gone."""
    try:
        return Path(f"/proc/{pid}/comm").read_text().strip()
    except (FileNotFoundError, ProcessLookupError):
        return ""


def _system_v_objects(init_pid: int) -> list[str]:
    """Return the kinds of System V objects that exist in a sandbox, with their numbers.

    A thread of our own enters the sandbox's IPC namespace, reads and ends; the service's other
    threads never leave the host's.
    """
    found: list[str] = []
    failed: list[OSError] = []

    def inside() -> None:
        try:
            _enter(init_pid)
            found.extend(_objects_here())
        except OSError as error:
            failed.append(error)

    thread = threading.Thread(target=inside, name="ipcns")
    thread.start()
    thread.join()
    if failed:
        raise failed[0]
    return found


def _enter(init_pid: int) -> None:
    """Move the calling thread into the IPC namespace of a sandbox.

    SAFETY: only this thread moves, and it ends right after; no other thread is affected.
    """
    descriptor = os.open(f"/proc/{init_pid}/ns/ipc", os.O_RDONLY | os.O_CLOEXEC)
    try:
        if _libc.setns(descriptor, _CLONE_NEWIPC) != 0:
            number = ctypes.get_errno()
            raise OSError(number, os.strerror(number))
    finally:
        os.close(descriptor)


def _objects_here() -> Iterator[str]:
    """Yield the kinds of objects in the calling thread's namespace (a header, then one a line)."""
    for kind, name in _SYSTEM_V.items():
        count = len(Path(f"/proc/sysvipc/{kind}").read_text().splitlines()) - 1
        if count:
            yield f"{count} {name}"
