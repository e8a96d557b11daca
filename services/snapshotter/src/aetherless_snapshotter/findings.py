# SPDX-License-Identifier: Apache-2.0
"""What the things that a program holds mean for a checkpoint. Pure: judges what was read before.

What is refused here is what CRIU refuses, or what a restore would not bring back: each rule was
tried with a program that holds the thing.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_snapshotter import errors
from aetherless_snapshotter.finding_kinds import (
    INFO,
    REFUSED,
    WARNING,
    Rule,
    of_declared_mounts,
    of_descriptor,
    of_mapping,
    of_program,
)
from aetherless_snapshotter.sandbox_spec import HANDLER_SOCKET

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Sequence

    from aetherless_common.errors import FailedPrecondition
    from aetherless_snapshotter.holdings import Holdings, Process
    from aetherless_snapshotter.netns import TcpSocket
    from aetherless_snapshotter.unixdiag import UnixSocket

#: What may pass by itself within moments.
PASSING = frozenset({"pending-connection"})
_ORDER = {REFUSED: 0, WARNING: 1, INFO: 2}


@dataclass(frozen=True)
class Place:
    """What of the sandbox is the function's own.

    Attributes:
        port: the trigger port.
        trees: the writable folders that the snapshot keeps.
        mounts: the folders of the host that the user declared.
    """

    port: int
    trees: frozenset[str]
    mounts: tuple[str, ...]


def judge(
    holdings: Holdings, ended: Iterable[TcpSocket], place: Place, outside: Iterable[Rule] = ()
) -> list[snapshot_pb2.Finding]:
    """Return what a tree holds, the refusals first, each thing once.

    Args:
        holdings: what was read.
        ended: the connections to the outside that were ended for the checkpoint.
        place: what is the function's own.
        outside: what the program has outside its tree.
    """
    found: dict[tuple[str, str], snapshot_pb2.Finding] = {}
    of_nobody = ((rule, None) for rule in outside)
    for rule, process in (*of_nobody, *_rules(holdings, ended, place)):
        finding = _finding(rule)
        if process is not None:
            finding.pid, finding.command = process.inner_pid, printable(process.command)
        found.setdefault((rule.subject, rule.message), finding)
    return sorted(found.values(), key=lambda each: (_ORDER[each.severity], each.subject))


def of_mounts(mounts: Iterable[tuple[str, int]]) -> list[snapshot_pb2.Finding]:
    """Return what declared mounts mean; each is a path and its file's mode."""
    return [_finding(rule) for rule in of_declared_mounts(mounts)]


def _finding(rule: Rule) -> snapshot_pb2.Finding:
    """Return a rule in the contract's words."""
    return snapshot_pb2.Finding(
        subject=rule.subject,
        severity=rule.severity,
        message=printable(rule.message),
        remedy=printable(rule.remedy),
    )


def printable(text: str) -> str:
    """Return a text that may hold a file's name with the bytes shown that are no UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="backslashreplace")


def refusals(findings: Iterable[snapshot_pb2.Finding]) -> list[snapshot_pb2.Finding]:
    """Return those that stand against a checkpoint."""
    return [each for each in findings if each.severity == REFUSED]


def refusal(function: str, refused: Sequence[snapshot_pb2.Finding]) -> FailedPrecondition:
    """Return the typed error for findings that stand against a checkpoint."""
    causes = [f"{each.command or 'it'} {each.message}" for each in refused]
    remedies = dict.fromkeys(each.remedy for each in refused)
    return errors.not_checkpointable(function, "; ".join(causes), "; ".join(remedies))


def _rules(
    holdings: Holdings, ended: Iterable[TcpSocket], place: Place
) -> Iterator[tuple[Rule, Process | None]]:
    """Yield all that was found, and whose it is."""
    members = frozenset(process.pid for process in holdings.processes)
    for process in holdings.processes:
        for rule in _of_process(process, members, place):
            yield rule, process
    for rule in (*_of_tcp(holdings.tcp, place), *_of_ended(ended), *_of_unix(holdings)):
        yield rule, None
    if not holdings.complete:
        message = "holds more descriptors and mappings than are looked at"
        yield Rule("inspection", WARNING, message, "let it hold fewer, or trust the dump"), None


def _of_process(process: Process, members: frozenset[int], place: Place) -> Iterator[Rule]:
    """Yield what one process holds by itself."""
    if process.tracer:
        yield Rule(
            "tracer",
            REFUSED,
            "is traced by a debugger",
            "deploy it without a debugger (strace, gdb, ptrace) attached",
        )
    if process.locked_kb:
        yield Rule(
            "locked-memory",
            INFO,
            f"holds {process.locked_kb} KiB locked in memory; each restore copies them",
        )
    for descriptor in process.descriptors:
        yield from of_descriptor(descriptor, process.mounts, members, place.trees, place.mounts)
    for mapping in process.mappings:
        yield from of_mapping(mapping, place.mounts)
    yield from of_program(process)


def _of_tcp(sockets: Iterable[TcpSocket], place: Place) -> Iterator[Rule]:
    """Yield what listens beside the trigger port, and who was not accepted yet."""
    for socket in sockets:
        if not socket.listens:
            continue
        where = socket.place
        if socket.queued:
            yield Rule(
                "pending-connection",
                REFUSED,
                f"did not accept {socket.queued} of the connections to {where}",
                "let it accept each connection before it answers its warm-up request",
            )
        if socket.local_port != place.port:
            yield Rule(
                "listener",
                INFO,
                f"listens on {where} as well; it is restored, but only the trigger port is reached"
                " from outside",
            )


def _of_ended(ended: Iterable[TcpSocket]) -> Iterator[Rule]:
    """Yield the connections that clones can't share."""
    counts: dict[str, int] = {}
    for socket in ended:
        counts[socket.remote_place] = counts.get(socket.remote_place, 0) + 1
    for remote, count in sorted(counts.items()):
        yield Rule(
            "outbound-connection",
            WARNING,
            f"had {count} connection{'s' if count > 1 else ''} to {remote} that"
            f" {'are' if count > 1 else 'is'} closed before the checkpoint",
            "let it connect again when a connection is lost, or connect at the first request",
        )


def _of_unix(holdings: Holdings) -> Iterator[Rule]:
    """Yield Unix sockets that lead out of the tree, or that no file names any more."""
    held = {
        descriptor.inode
        for process in holdings.processes
        for descriptor in process.descriptors
        if descriptor.link.startswith("socket:")
    }
    names = {each.inode: each.name for each in holdings.unix}
    pending = {inode for each in holdings.unix if each.inode in held for inode in each.pending}
    for socket in holdings.unix:
        if socket.inode in held:
            yield from _of_unix_socket(socket, held | pending, names)
            if socket.name in holdings.gone and not socket.peer:
                yield Rule(
                    "unix-socket",
                    REFUSED,
                    f"holds the Unix socket {socket.name}, whose file was removed",
                    "keep the file of a Unix socket while it is open",
                )


def _of_unix_socket(socket: UnixSocket, inside: set[int], names: dict[int, str]) -> Iterator[Rule]:
    """Yield what one Unix socket of the tree is connected to outside of it."""
    if any(inode == 0 or inode not in inside for inode in socket.pending):
        yield Rule(
            "pending-connection",
            REFUSED,
            f"did not accept some of the connections to the Unix socket {socket.name}",
            "let it accept each connection before it answers its warm-up request",
        )
    if not socket.peer or socket.peer in inside:
        return
    name = names.get(socket.peer, "")
    if name != HANDLER_SOCKET:
        yield Rule(
            "unix-connection",
            REFUSED,
            f"is connected to the Unix socket {name or 'of another program'} outside its sandbox",
            "connect at the first request, and close the connection after it",
        )
