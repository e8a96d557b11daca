# SPDX-License-Identifier: Apache-2.0
"""Looks at what a golden's tree holds, right before it is dumped, and refuses what can't be."""

from __future__ import annotations

import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_snapshotter import errors, findings, holdings, processes, strays

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.netns import TcpSocket
    from aetherless_snapshotter.workshop import Golden

#: How long something that may pass by itself is waited for.
_PATIENCE_SECONDS = 1.0
_POLL_SECONDS = 0.02


@dataclass(frozen=True)
class Found:
    """What a program holds, as it is told to whoever waits for the snapshot."""

    findings: tuple[snapshot_pb2.Finding, ...]


class Inspection:
    """The inspection of one golden.

    Attributes:
        findings: what was found so far, the refusals first.
    """

    def __init__(self, golden: Golden) -> None:
        self.findings: tuple[snapshot_pb2.Finding, ...] = ()
        self._golden = golden
        self._ended: list[TcpSocket] = []
        self._told: tuple[snapshot_pb2.Finding, ...] = ()

    def news(self) -> Iterator[Found]:
        """Yield what was found and not told yet."""
        if self.findings != self._told:
            self._told = self.findings
            yield Found(self.findings)

    def note_connections(self) -> None:
        """Note the connections to the outside, which are about to be ended."""
        port = self._golden.workload.trigger_port
        self._ended = [
            socket
            for socket in holdings.tcp_sockets(self._golden.sandbox.netns_path)
            if socket.leads_outside and socket.local_port != port
        ]

    def look(self, sandbox_pid: int) -> str:
        """Look at the tree of ``sandbox_pid``, an id inside; returns one line about it.

        Raises:
            FailedPrecondition: NOT_CHECKPOINTABLE.
        """
        until = time.monotonic() + _PATIENCE_SECONDS
        self.findings = self._judge(sandbox_pid)
        while self._may_pass() and time.monotonic() < until:
            time.sleep(_POLL_SECONDS)
            self.findings = self._judge(sandbox_pid)
        refused = findings.refusals(self.findings)
        if refused:
            raise findings.refusal(self._golden.workload.function_id, refused)
        warnings = sum(
            each.severity == snapshot_pb2.FINDING_SEVERITY_WARNING for each in self.findings
        )
        return f"findings: {len(self.findings)}, warnings among them: {warnings}"

    def _judge(self, sandbox_pid: int) -> tuple[snapshot_pb2.Finding, ...]:
        """Return what the tree holds now."""
        golden = self._golden
        root = processes.host_pid(golden.sandbox.init_pid, sandbox_pid)
        if not root:
            return ()  # it has ended; the dump says so
        place = findings.Place(
            port=golden.workload.trigger_port,
            trees=frozenset(tree.target for tree in golden.trees),
            mounts=tuple(golden.workload.mounts),
        )
        try:
            held = holdings.read(root, golden.sandbox.netns_path)
            members = golden.sandbox.tree_processes()
            outside = list(strays.find(golden.sandbox.init_pid, root, members))
        except OSError as error:
            raise errors.sandbox_failed(golden.sandbox.instance_id, str(error)) from error
        return tuple(findings.judge(held, self._ended, place, outside))

    def _may_pass(self) -> bool:
        """Tell whether all that stands against a checkpoint may be gone in a moment."""
        refused = findings.refusals(self.findings)
        return bool(refused) and all(each.subject in findings.PASSING for each in refused)


def refuse_devices(workload: instance_pb2.Workload) -> None:
    """Look at the mounts that the user declared, before anything is made.

    Raises:
        FailedPrecondition: NOT_CHECKPOINTABLE, one of them is a device.
    """
    found = findings.of_mounts((path, _mode(path)) for path in workload.mounts)
    if found:
        raise findings.refusal(workload.function_id, found)


def _mode(path: str) -> int:
    """Return a file's mode; 0 for one that does not exist."""
    try:
        return Path(path).stat().st_mode
    except OSError:
        return 0
