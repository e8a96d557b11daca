# SPDX-License-Identifier: Apache-2.0
"""The kinds of things that one process can hold, and what each means for a checkpoint."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_snapshotter import generators
from aetherless_snapshotter.criu import GHOST_LIMIT
from aetherless_snapshotter.sandbox_spec import LOG_TARGET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aetherless_snapshotter.holdings import Descriptor, Mapping, Mount, Process

INFO = snapshot_pb2.FINDING_SEVERITY_INFO
WARNING = snapshot_pb2.FINDING_SEVERITY_WARNING
REFUSED = snapshot_pb2.FINDING_SEVERITY_REFUSED

_DELETED = " (deleted)"
_TERMINALS = frozenset({2, 3, 4, 5, *range(136, 144)})
_PLAIN_DEVICES = frozenset(os.makedev(1, minor) for minor in (3, 5, 7, 8, 9))
_PLAIN_SOCKETS = frozenset(
    [
        "TCP",
        "TCPv6",
        "UDP",
        "UDPv6",
        "UDP-Lite",
        "UDPLITEv6",
        "UNIX",
        "UNIX-STREAM",
        "NETLINK",
        "PACKET",
        "RAW",
        "RAWv6",
    ]
)
_PLAIN_INODES = frozenset(
    ["eventfd", "eventpoll", "inotify", "fanotify", "signalfd", "timerfd", "pidfd"]
)
#: File systems whose files CRIU can't watch again: they are not found by their handles.
_UNWATCHABLE = frozenset({"overlay", "proc", "devtmpfs"})
_WATCH = re.compile(r"(?:inotify|fanotify) .*\bsdev:(?P<device>[0-9a-f]+)")


@dataclass(frozen=True)
class Rule:
    """What was found, before it is known whose it is."""

    subject: str
    severity: snapshot_pb2.FindingSeverity.ValueType
    message: str
    remedy: str = ""


_RING = Rule(
    "io-uring",
    REFUSED,
    "holds an io_uring",
    "let it use epoll: UV_USE_IO_URING=0 for libuv (the default here), asyncio's own loop instead"
    " of uvloop, or turn io_uring off in the program's own configuration",
)
_HUGE = Rule(
    "huge-pages",
    REFUSED,
    "holds explicit huge pages (hugetlb)",
    "turn huge pages off in the program's configuration; transparent ones are fine",
)
_SECRET = Rule(
    "secret-memory",
    REFUSED,
    "holds secret memory (memfd_secret), which nothing can copy",
    "turn it off in the program's configuration",
)
_PROFILER = Rule(
    "perf-event", REFUSED, "holds a perf event", "turn profiling off until the first request"
)
_INODES = {
    "io_uring": _RING,
    "perf_event": _PROFILER,
    "userfaultfd": Rule(
        "userfaultfd",
        REFUSED,
        "holds a userfaultfd",
        "turn off what handles page faults in the program (some garbage collectors do)",
    ),
    "landlock-ruleset": Rule(
        "landlock",
        REFUSED,
        "holds a Landlock ruleset, and a restore would not restrict it again",
        "leave the confinement to the sandbox",
    ),
}
_NEW_SOCKETS = {
    "MPTCP": Rule(
        "mptcp",
        REFUSED,
        "holds an MPTCP socket",
        "use plain TCP: GODEBUG=multipathtcp=0 for Go (the default here unless the function sets"
        " GODEBUG), or ListenConfig.SetMultipathTCP(false)",
    ),
}
_TERMINAL_REMEDY = (
    "don't open /dev/tty, /dev/ptmx or a pseudo-terminal before the first request: what is at its"
    " other end is not restored"
)
_DEVICE_REMEDY = "open devices at the first request, or don't use them in a function"


def of_descriptor(
    descriptor: Descriptor,
    mounts: tuple[Mount, ...],
    members: frozenset[int],
    trees: frozenset[str],
    declared: tuple[str, ...],
) -> Iterator[Rule]:
    """Yield what one descriptor means.

    Args:
        descriptor: the descriptor.
        mounts: the mounts of its process.
        members: the processes of the tree, as ids of the host.
        trees: the writable folders that the snapshot keeps.
        declared: the folders of the host that the user declared.
    """
    if descriptor.link.startswith("socket:"):
        yield from _of_socket(descriptor)
    elif descriptor.link.startswith(("anon_inode:", "pidfd:")):
        yield from _of_inode(descriptor, mounts, members)
    elif stat.S_ISCHR(descriptor.mode) or stat.S_ISBLK(descriptor.mode):
        yield from _of_device(descriptor)
    elif descriptor.link.startswith("/"):
        yield from _of_file(descriptor, trees, declared)


def of_mapping(mapping: Mapping, declared: tuple[str, ...]) -> Iterator[Rule]:
    """Yield what one mapped file means."""
    link = mapping.link
    if link.startswith("anon_inode:"):
        yield _unknown_inode(_kind(link))
    elif link.startswith("/anon_hugepage"):
        yield _HUGE
    elif link.startswith("/secretmem"):
        yield _SECRET
    elif link.startswith("/SYSV"):
        yield Rule(
            "system-v",
            REFUSED,
            "has System V shared memory attached",
            "use POSIX shared memory (shm_open, mmap) or files",
        )
    elif link.endswith(_DELETED) and not link.startswith(("/memfd:", "/dev/zero", "/[aio]")):
        yield _deleted("has mapped", link, mapping.links, 0)
    elif _is_below(link, declared):
        yield _outside("has mapped", link)


def of_program(process: Process) -> Iterator[Rule]:
    """Yield the user-space random generators that a process has loaded."""
    loaded = [process.program, *(mapping.link for mapping in process.mappings)]
    found = generators.among(PurePosixPath(link.removesuffix(_DELETED)).name for link in loaded)
    if found:
        yield Rule(
            "random-generator",
            WARNING,
            f"has loaded {' and '.join(each.words for each in found)}: all copies that are restored"
            " go on with the same random state",
            "; ".join(each.remedy for each in found),
        )


def of_declared_mounts(paths: Iterable[tuple[str, int]]) -> Iterator[Rule]:
    """Yield the declared mounts that are devices; each a path and its file mode."""
    for path, mode in paths:
        inside = _is_below(path, ("/dev",)) and not _is_below(path, ("/dev/shm",))  # noqa: S108
        if inside or stat.S_ISCHR(mode) or stat.S_ISBLK(mode):
            yield Rule("device", REFUSED, f"has the device {path} among its mounts", _DEVICE_REMEDY)


def _of_socket(descriptor: Descriptor) -> Iterator[Rule]:
    """Yield what a socket's protocol means."""
    protocol = descriptor.protocol
    known = _NEW_SOCKETS.get(protocol.removesuffix("v6"))
    if known:
        yield known
    elif protocol and protocol not in _PLAIN_SOCKETS:
        yield Rule(
            "socket",
            REFUSED,
            f"holds a socket of protocol {protocol}",
            "use TCP, UDP, Unix or netlink sockets before the first request",
        )


def _of_inode(
    descriptor: Descriptor, mounts: tuple[Mount, ...], members: frozenset[int]
) -> Iterator[Rule]:
    """Yield what a descriptor means that is no file."""
    kind = _kind(descriptor.link)
    if kind == "pidfd":
        yield from _of_pidfd(descriptor, members)
    elif kind in {"inotify", "fanotify"}:
        yield from _of_watches(descriptor, mounts)
    elif kind not in _PLAIN_INODES:
        yield _unknown_inode(kind)


def _unknown_inode(kind: str) -> Rule:
    """Return what a kind means that CRIU does not know."""
    if kind.startswith("kvm"):
        return Rule("device", REFUSED, "holds a virtual machine of KVM", _DEVICE_REMEDY)
    if kind.startswith(("bpf", "btf")):
        return Rule("bpf", REFUSED, "holds a BPF object", "load BPF programs outside of functions")
    message = f"holds a {kind} descriptor, which can't be checkpointed"
    return _INODES.get(kind) or Rule(
        "descriptor", REFUSED, message, "open it at the first request, or turn it off"
    )


def _of_pidfd(descriptor: Descriptor, members: frozenset[int]) -> Iterator[Rule]:
    """Yield what a pidfd of a process outside the tree means; one that ended has the id -1."""
    ids = [int(line.split()[1]) for line in descriptor.info if line.startswith("Pid:")]
    if any(pid > 0 and pid not in members for pid in ids):
        yield Rule(
            "pidfd",
            REFUSED,
            "holds a pidfd of a process outside its tree",
            "close it before the first request",
        )


def _of_watches(descriptor: Descriptor, mounts: tuple[Mount, ...]) -> Iterator[Rule]:
    """Yield what watches of files mean."""
    kinds = {mount.device: mount.kind for mount in mounts}
    for line in descriptor.info:
        match = _WATCH.match(line)
        if match is None:
            continue
        device = int(match["device"], 16)
        if kinds.get(f"{device >> 20}:{device & 0xFFFFF}") in _UNWATCHABLE:
            yield Rule(
                "file-watch",
                REFUSED,
                "watches files of its own folders (inotify or fanotify)",
                "turn automatic reloading off",
            )


def _of_device(descriptor: Descriptor) -> Iterator[Rule]:
    """Yield what an open device file means."""
    if os.major(descriptor.device) in _TERMINALS and stat.S_ISCHR(descriptor.mode):
        yield Rule("terminal", REFUSED, f"holds a terminal ({descriptor.link})", _TERMINAL_REMEDY)
    elif descriptor.device not in _PLAIN_DEVICES:
        message = f"holds the device {descriptor.link}"
        yield Rule("device", REFUSED, message, _DEVICE_REMEDY)
    elif descriptor.mount is None:
        yield _foreign(descriptor.link)


def _of_file(
    descriptor: Descriptor, trees: frozenset[str], declared: tuple[str, ...]
) -> Iterator[Rule]:
    """Yield what an open file or folder means."""
    link, mount = descriptor.link, descriptor.mount
    if link.startswith("/memfd:"):
        if descriptor.block_size > os.sysconf("SC_PAGE_SIZE"):
            yield _HUGE
    elif link.startswith("/secretmem"):
        yield _SECRET
    elif mount is None:
        yield _foreign(link)
    elif link.endswith(_DELETED):
        yield _deleted("has open", link, descriptor.links, descriptor.size)
    elif stat.S_ISREG(descriptor.mode) and _is_below(link, declared):
        yield _outside("has open", link)
    elif stat.S_ISREG(descriptor.mode) and not _is_own(mount, trees):
        yield Rule("outside-file", INFO, f"has open {link} of the host")


def _deleted(how: str, link: str, links: int, size: int) -> Rule:
    """Return what a file means that is in use and has no name any more."""
    name = link.removesuffix(_DELETED)
    if links:
        return Rule(
            "deleted-file",
            REFUSED,
            f"{how} {name}, which was removed or replaced under this name but has another one",
            "close files before they are replaced",
        )
    if size > GHOST_LIMIT:
        return Rule(
            "deleted-file",
            REFUSED,
            f"{how} the deleted file {name} of {size >> 20} MiB",
            f"close deleted temporary files, or keep them below {GHOST_LIMIT >> 20} MiB",
        )
    return Rule("deleted-file", INFO, f"{how} the deleted file {name}; the snapshot keeps it")


def _outside(how: str, link: str) -> Rule:
    """Return what a file means that the host may change at any time."""
    return Rule(
        "outside-file",
        WARNING,
        f"{how} {link} of the host, which no snapshot keeps: restores fail once its size changes",
        "open it at the first request, or put it into the function's folder",
    )


def _foreign(link: str) -> Rule:
    """Return what a file means that came from outside the sandbox."""
    return Rule(
        "foreign-file",
        REFUSED,
        f"holds {link}, which none of its sandbox's file systems has",
        "open files by their paths; no message queues, and no descriptors from other programs",
    )


def _kind(link: str) -> str:
    """Return the kind in a link such as "anon_inode:[eventfd]" or "pidfd:[7]"."""
    before, _, after = link.partition(":")
    return before if before == "pidfd" else after.strip("[]")


def _is_below(path: str, folders: Iterable[str]) -> bool:
    """Tell whether a path is one of the folders, or in one."""
    return any(PurePosixPath(path).is_relative_to(folder) for folder in folders)


def _is_own(mount: Mount, trees: frozenset[str]) -> bool:
    """Tell whether a mount is the sandbox's own, and not a folder of the host."""
    return mount.kind == "proc" or mount.target in {*trees, LOG_TARGET}
