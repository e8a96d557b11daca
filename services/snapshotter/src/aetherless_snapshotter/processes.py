# SPDX-License-Identifier: Apache-2.0
"""The processes of a sandbox as the host sees them, and the memory they use."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC = Path("/proc")
_KB = 1024
_PAGE = os.sysconf("SC_PAGE_SIZE")
#: The page tables of so many processes are read: a fork bomb's thousand would take a minute.
FEW = 64


@dataclass(frozen=True)
class Memory:
    """Bytes of resident memory: of these processes alone, and of files and shared memory.

    A snapshot's pages count as a file's, also when only one clone happens to map them.
    """

    unique: int
    shared: int

    def __add__(self, other: Memory) -> Memory:
        return Memory(self.unique + other.unique, self.shared + other.shared)


def children(pid: int) -> list[int]:
    """Return the children of all threads of ``pid``; none when it is gone."""
    found: list[int] = []
    for thread in _entries(PROC / str(pid) / "task"):
        try:
            found += [int(word) for word in (thread / "children").read_text().split()]
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


def _entries(folder: Path) -> list[Path]:
    """Return what is in a folder of /proc; nothing when its process is gone."""
    try:
        return list(folder.iterdir())
    except (FileNotFoundError, ProcessLookupError):
        return []


def tree(pid: int) -> Iterator[int]:
    """Yield ``pid`` and all its descendants."""
    waiting = [pid]
    while waiting:
        pid = waiting.pop()
        yield pid
        waiting += children(pid)


def host_pid(init_pid: int, sandbox_pid: int) -> int:
    """Return the host's id of the init's child with the id ``sandbox_pid`` inside; 0 when none."""
    if sandbox_pid <= 1:
        return 0
    return next((pid for pid in children(init_pid) if inner_pid(pid) == sandbox_pid), 0)


def open_sockets(pid: int) -> set[int]:
    """Return the inode numbers of the sockets a process has open; none when it is gone."""
    found = set()
    for entry in _entries(PROC / str(pid) / "fd"):
        try:
            link = str(entry.readlink())
        except (FileNotFoundError, ProcessLookupError):
            continue
        if link.startswith("socket:["):
            found.add(int(link[len("socket:[") : -1]))
    return found


def holds_file(pid: int, name: str) -> bool:
    """Tell whether a process has a file open or mapped, by its name as /proc shows it."""
    try:
        maps = (PROC / str(pid) / "maps").read_text(errors="replace")
        links = [_target(entry) for entry in (PROC / str(pid) / "fd").iterdir()]
    except (FileNotFoundError, ProcessLookupError):
        return False
    return name in links or any(line.endswith(f" {name}") for line in maps.splitlines())


def _target(entry: Path) -> str:
    """Return where a link of /proc leads; empty when it is gone."""
    try:
        return str(entry.readlink())
    except (FileNotFoundError, ProcessLookupError):
        return ""


def inner_pid(pid: int) -> int:
    """Return a process's id in its own pid namespace; 0 when it is gone."""
    try:
        status = (PROC / str(pid) / "status").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return 0
    line = next((row for row in status.splitlines() if row.startswith("NSpid:")), "NSpid: 0")
    return int(line.split()[-1])


def waits_on(pid: int, descriptor: int) -> bool:
    """Tell whether a process sleeps in a system call on ``descriptor`` (/proc/PID/syscall)."""
    try:
        words = (PROC / str(pid) / "syscall").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return False
    return len(words) > 1 and words[1].startswith("0x") and int(words[1], 16) == descriptor


def memory(pid: int) -> Memory:
    """Return the memory of ``pid`` and its descendants.

    The page tables are read (smaps_rollup of proc(5)), which waits for what changes them; of more
    processes than a few the kernel's own counters are taken, which waits for nobody.
    """
    members = list(tree(pid))
    look = _rollup if len(members) <= FEW else _counted
    return sum((look(member) for member in members), Memory(0, 0))


def _counted(pid: int) -> Memory:
    """Return one process's memory by the kernel's counters; nothing when it is gone."""
    try:
        words = (PROC / str(pid) / "statm").read_text().split()
    except (FileNotFoundError, ProcessLookupError):
        return Memory(0, 0)
    resident, shared = (int(word) * _PAGE for word in words[1:3])
    return Memory(resident - shared, shared)


def _rollup(pid: int) -> Memory:
    """Return one process's memory; nothing when it is gone."""
    try:
        text = (PROC / str(pid) / "smaps_rollup").read_text()
    except (FileNotFoundError, ProcessLookupError):
        return Memory(0, 0)
    sizes: dict[str, int] = {}
    for line in text.splitlines()[1:]:
        key, value, *_ = line.split()
        sizes[key.rstrip(":")] = int(value) * _KB
    unique = sizes.get("Anonymous", 0)
    return Memory(unique, sizes.get("Rss", unique) - unique)
