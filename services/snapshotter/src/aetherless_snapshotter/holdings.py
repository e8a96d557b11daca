# SPDX-License-Identifier: Apache-2.0
"""What the processes of a tree hold, as the host's /proc shows it. Only reads; judges nothing.

A handler is not trusted: nothing is opened through its descriptors or its root, they are only
looked at (readlink, stat, getxattr), and how much is read is bounded: no list is taken whole before
it is counted.
"""

from __future__ import annotations

import ctypes
import errno
import os
from dataclasses import dataclass
from itertools import islice
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from aetherless_snapshotter import processes
from aetherless_snapshotter.netns import TcpSocket, TcpTable
from aetherless_snapshotter.unixdiag import UnixSocket, unix_sockets

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

#: Descriptors, mappings, sockets, and lines of long descriptions, looked at in all; far above what
#: any server holds.
LIMIT = 50_000
#: Lines of a descriptor's description that are not counted: those that each has, and a few more.
_USUAL_LINES = 16
_ANONYMOUS_INODE = "anon_inode:"
_SYS_OPENAT2 = 437
_RESOLVE_IN_ROOT = 0x10
_libc = ctypes.CDLL(None, use_errno=True)
T = TypeVar("T")


@dataclass(frozen=True)
class Mount:
    """A mount of the sandbox (mountinfo of proc(5)); ``device`` is "major:minor"."""

    device: str
    target: str
    kind: str


@dataclass(frozen=True)
class Descriptor:
    """One open descriptor.

    Attributes:
        link: where /proc/PID/fd/N leads, a path of the sandbox or a kind, such as "pipe:[7]".
        mode: file type and permission bits (inode(7)).
        device: of a device file its number, else 0.
        links: the number of names its file has.
        inode: its file's inode number.
        size: its file's length in bytes.
        block_size: of a memory file the size of its pages, else 0.
        protocol: of a socket its protocol's name in the kernel, such as "TCP" or "UNIX".
        mount: where its file is; None for one that no mount of the sandbox holds.
        info: of what is no file, the lines of its fdinfo.
    """

    number: int
    link: str
    mode: int
    device: int
    links: int
    inode: int
    size: int
    block_size: int
    protocol: str
    mount: Mount | None
    info: tuple[str, ...]


@dataclass(frozen=True)
class Mapping:
    """A mapped file; ``links`` is the number of names that a deleted one still has."""

    link: str
    shared: bool
    links: int


@dataclass(frozen=True)
class Process:
    """One process; ``pid`` and ``tracer`` are ids of the host, ``inner_pid`` of the sandbox."""

    pid: int
    inner_pid: int
    command: str
    program: str
    tracer: int
    locked_kb: int
    mounts: tuple[Mount, ...]
    descriptors: tuple[Descriptor, ...]
    mappings: tuple[Mapping, ...]


@dataclass(frozen=True)
class Holdings:
    """What a whole tree holds.

    Attributes:
        gone: names of Unix sockets whose file does not exist any more.
        complete: whether everything was looked at; see ``LIMIT``.
    """

    processes: tuple[Process, ...]
    tcp: tuple[TcpSocket, ...]
    unix: tuple[UnixSocket, ...]
    gone: frozenset[str]
    complete: bool = True


def tcp_sockets(netns: Path) -> tuple[TcpSocket, ...]:
    """Return the TCP sockets of a sandbox.

    Raises:
        OSError: the sandbox is gone.
    """
    with TcpTable(netns) as table:
        return tuple(table.all())


def read(root_pid: int, netns: Path) -> Holdings:
    """Return what the tree below ``root_pid``, an id of the host, holds.

    What ends or is closed meanwhile is left out.

    Raises:
        OSError: the sandbox is gone.
    """
    budget = _Budget(LIMIT)
    found = [_process(pid, budget) for pid in processes.tree(root_pid)]
    members = tuple(each for each in found if each is not None)
    unix = tuple(budget.take(unix_sockets(netns)))
    with TcpTable(netns) as table:
        tcp = tuple(budget.take(table.each()))
    names = {each.name for each in unix if each.name.startswith("/")}
    return Holdings(
        processes=members,
        tcp=tcp,
        unix=unix,
        gone=frozenset(_missing(root_pid, names)),
        complete=budget.left > 0,
    )


@dataclass
class _Budget:
    """How much may still be looked at."""

    left: int

    def take(self, items: Iterable[T]) -> Iterator[T]:
        """Yield as many of the items as may be looked at; the others are not asked for."""
        for item in items:
            if self.left <= 0:
                return
            self.left -= 1
            yield item


def _process(pid: int, budget: _Budget) -> Process | None:
    """Return what one process holds; None when it has ended, reaped or not."""
    try:
        status = dict(
            line.split(":\t", 1) for line in _text(pid, "status").splitlines() if ":\t" in line
        )
        if status["State"].startswith("Z"):
            return None
        mounts = dict(_mounts(_text(pid, "mountinfo")))
        return Process(
            pid=pid,
            inner_pid=int(status["NSpid"].split()[-1]),
            command=status["Name"],
            program=_link(Path(f"/proc/{pid}/exe")),
            tracer=int(status["TracerPid"]),
            locked_kb=int(status.get("VmLck", "0 kB").split()[0]),
            mounts=tuple(mounts.values()),
            descriptors=tuple(_descriptors(pid, mounts, budget)),
            mappings=tuple(_mappings(pid, budget)),
        )
    except (FileNotFoundError, ProcessLookupError):
        return None
    except OSError as error:
        if error.errno == errno.EINVAL:  # a zombie's mountinfo
            return None
        raise


def _mounts(text: str) -> Iterator[tuple[int, Mount]]:
    """Yield the mounts of a process by their ids."""
    for line in text.splitlines():
        before, _, after = line.partition(" - ")
        fields = before.split()
        yield int(fields[0]), Mount(fields[2], fields[4], after.split()[0])


def _descriptors(pid: int, mounts: dict[int, Mount], budget: _Budget) -> Iterator[Descriptor]:
    """Yield the descriptors of a process; one that is closed meanwhile is left out."""
    with os.scandir(f"/proc/{pid}/fd") as entries:
        for entry in budget.take(entries):
            try:
                yield _descriptor(pid, entry.name, mounts, budget)
            except (FileNotFoundError, ProcessLookupError):
                continue


def _descriptor(pid: int, name: str, mounts: dict[int, Mount], budget: _Budget) -> Descriptor:
    """Return one descriptor."""
    path = Path(f"/proc/{pid}/fd/{name}")
    link, status = _link(path), path.stat()
    info = _info(pid, name, budget)
    ids = [int(line.split()[1]) for line in info if line.startswith("mnt_id:")]
    return Descriptor(
        number=int(name),
        link=link,
        mode=status.st_mode,
        device=status.st_rdev,
        links=status.st_nlink,
        inode=status.st_ino,
        size=status.st_size,
        block_size=os.statvfs(path).f_bsize if link.startswith("/memfd:") else 0,
        protocol=_protocol(path) if link.startswith("socket:") else "",
        mount=next((mounts[each] for each in ids if each in mounts), None),
        info=tuple(info) if link.startswith((_ANONYMOUS_INODE, "pidfd:")) else (),
    )


def _info(pid: int, name: str, budget: _Budget) -> list[str]:
    """Return the lines of a descriptor's fdinfo; an epoll or inotify has one for each target."""
    with Path(f"/proc/{pid}/fdinfo/{name}").open(errors="replace") as lines:
        usual = list(islice(lines, _USUAL_LINES))
        return [line.rstrip("\n") for line in (*usual, *budget.take(lines))]


def _protocol(path: Path) -> str:
    """Return a socket's protocol by its name in the kernel (an attribute that lsof reads too)."""
    try:
        return os.getxattr(path, "system.sockprotoname").rstrip(b"\0").decode()
    except OSError:
        return ""


def _mappings(pid: int, budget: _Budget) -> Iterator[Mapping]:
    """Yield the files that a process has mapped, each once."""
    seen: set[tuple[str, str]] = set()
    with Path(f"/proc/{pid}/maps").open(errors="replace") as lines:
        for line in budget.take(lines):
            fields = line.rstrip("\n").split(maxsplit=5)
            if fields[4] == "0" or len(fields) < 6:  # noqa: PLR2004 - no inode, or no name
                continue
            if (fields[5], fields[4]) not in seen:
                seen.add((fields[5], fields[4]))
                links = _links(pid, fields[0]) if fields[5].endswith(" (deleted)") else 1
                yield Mapping(fields[5], fields[1][3] == "s", links)


def _links(pid: int, addresses: str) -> int:
    """Return how many names a mapped file still has."""
    first, _, last = addresses.partition("-")
    try:
        path = Path(f"/proc/{pid}/map_files/{int(first, 16):x}-{int(last, 16):x}")
        return path.stat().st_nlink
    except OSError:
        return 0


def _missing(pid: int, names: Iterable[str]) -> Iterator[str]:
    """Yield the absolute paths that do not exist below a process's root."""
    try:
        root = os.open(f"/proc/{pid}/root", os.O_PATH | os.O_DIRECTORY | os.O_CLOEXEC)
    except (FileNotFoundError, ProcessLookupError):
        return
    try:
        yield from (name for name in names if not _exists(root, name))
    finally:
        os.close(root)


def _exists(root: int, name: str) -> bool:
    """Tell whether a path exists, with ``root`` as the root that no symlink leads out of."""
    how = (ctypes.c_uint64 * 3)(os.O_PATH | os.O_CLOEXEC | os.O_NOFOLLOW, 0, _RESOLVE_IN_ROOT)
    found: int = _libc.syscall(
        ctypes.c_long(_SYS_OPENAT2),
        ctypes.c_int(root),
        ctypes.c_char_p(os.fsencode(name)),
        ctypes.byref(how),
        ctypes.c_size_t(ctypes.sizeof(how)),
    )
    if found >= 0:
        os.close(found)
    return found >= 0


def _text(pid: int, name: str) -> str:
    """Return a file of a process's /proc folder."""
    return Path(f"/proc/{pid}/{name}").read_text(errors="replace")


def _link(path: Path) -> str:
    """Return where a link of /proc leads; empty when it leads nowhere."""
    try:
        return str(path.readlink())
    except FileNotFoundError:
        return ""
