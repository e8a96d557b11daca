# SPDX-License-Identifier: Apache-2.0
"""One sandbox, seen from the host: made, driven, adopted after a restart, and deleted.

Only this module (and what it imports) speaks the control protocol of ``init/README.md``.
"""

from __future__ import annotations

import socket
import subprocess
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from aetherless_snapshotter.sandbox_events import Event, SandboxStatus, Wake
from aetherless_snapshotter.sandbox_spec import SandboxSpec

EventHandler = Callable[[Event], None]


@dataclass(frozen=True)
class Endpoint:
    """Where a sandbox is reached, as the netplane made it.

    Attributes:
        host_link: the host's end of the sandbox's link.
        state_map: the pinned BPF map the init publishes its state in; None publishes nothing.
        slot: the instance's index in that map.
        inner_ipv4: the inner address whose local route is the gate.
        inner_ipv6: the same for IPv6; "" when there is none.
    """

    host_link: str
    state_map: Path | None
    slot: int
    inner_ipv4: str
    inner_ipv6: str


@dataclass(frozen=True)
class Quiesced:
    """How many TCP connections with the outside were ended before a checkpoint."""

    inbound: int
    outbound: int


class Sandbox:
    """A sandbox whose init lives.

    All methods may be called from any thread; commands are sent one at a time. Each raises
    ``SandboxGoneError`` when the init died, ``CommandTimeoutError`` when it does not answer, and
    ``WrongStateError`` when the sandbox's state does not allow it.

    Attributes:
        instance_id: the instance's id.
        folder: its runtime folder.
        init_pid: the init's pid on the host.
        start_time: the init's start time in clock ticks since boot (field 22 of its stat file).
        pidfd: a descriptor of the init, open as long as this object is.
        netns_path: the path of its network namespace.
    """

    instance_id: str
    folder: Path
    init_pid: int
    start_time: int
    pidfd: int
    netns_path: Path

    @classmethod
    def create(cls, spec: SandboxSpec, on_event: EventHandler) -> Sandbox:
        """Make a sandbox; its pid, start time and control group are on disk before it is used.

        ``on_event`` is called on a thread of the sandbox's own, one event at a time.

        Raises:
            SandboxError: a step failed; nothing of the sandbox is left behind.
        """
        raise NotImplementedError

    @classmethod
    def adopt(cls, folder: Path, on_event: EventHandler) -> Sandbox:
        """Take up the sandbox that an earlier process of the service left in ``folder``.

        Raises:
            SandboxGoneError: its init does not live, or was never complete; ``delete_folder`` cleans.
        """
        raise NotImplementedError

    def close(self) -> None:
        """Let go of the sandbox without ending it (descriptors, connection, thread)."""
        raise NotImplementedError

    def delete(self) -> None:
        """End the sandbox and all in it; remove its control groups and folder. Idempotent."""
        raise NotImplementedError

    def layer(self, tag: str) -> Path:
        """Return where the host reads a tree's upper layer (through the init's root)."""
        raise NotImplementedError

    def status(self) -> SandboxStatus:
        """Ask the init what it does."""
        raise NotImplementedError

    def wakes_since(self, sequence: int) -> list[Wake]:
        """Return the kept wakes (the newest 64) with a number above ``sequence``, oldest first."""
        raise NotImplementedError

    def spawn(self, argv: Sequence[str], env: Mapping[str, str], cwd: str) -> int:
        """Start the golden program and return its pid inside; its end comes as ``RootExited``.

        It runs as uid 1000 without capabilities and with no_new_privs, in a session of its own,
        with a high pid, stdin from /dev/null, stdout and stderr to the log, in group ``tree``.

        Raises:
            SandboxError: exec failed (``errno`` says why) or a program runs already.
        """
        raise NotImplementedError

    def open_handler_socket(self) -> None:
        """Listen on HANDLER_SOCKET inside; READY on it comes as ``HandlerReady``."""
        raise NotImplementedError

    def close_handler_socket(self) -> None:
        """Close all ends of HANDLER_SOCKET that are ours, also of those not yet accepted."""
        raise NotImplementedError

    def quiesce(self, port: int) -> Quiesced:
        """End the TCP connections whose peer lies outside the sandbox; ``port`` tells inbound ones."""
        raise NotImplementedError

    def attach_snapshot(self, images: Path) -> None:
        """Mount the one folder of images read-only at /snap (its files 0444)."""
        raise NotImplementedError

    def arm(
        self,
        request: bytes,
        *,
        port: int,
        deadline_ms: int,
        idle_after_ms: int,
        endpoint: Endpoint,
    ) -> None:
        """Hold first packets to ``port`` from now on; the first restores with ``request``.

        Args:
            request: a serialized ``criu_req`` of type RESTORE.
            port: the trigger port.
            deadline_ms: longest time from the first packet to CRIU's answer.
            idle_after_ms: evict after this long without a connection and anything in flight; 0 never.
            endpoint: the sandbox's link and addresses.
        """
        raise NotImplementedError

    def wake(self, timeout: float = 120.0) -> Wake | None:
        """Restore now; return the wake (failed ones too), or None when the tree runs already."""
        raise NotImplementedError

    def evict(self) -> None:
        """End the running tree and arm again; returns when the sandbox is armed. Idempotent.

        Raises:
            InFlightError: a request is in flight; the tree goes on running.
        """
        raise NotImplementedError

    def kill_tree(self) -> None:
        """End all processes of the tree (a golden that is no longer wanted); returns when it is empty."""
        raise NotImplementedError

    def spawn_host_criu(
        self, criu: int, inherited: Sequence[int] = ()
    ) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start ``criu swrk`` in all namespaces of the sandbox but the user namespace.

        It is executed by the descriptor ``criu``, has the descriptors ``inherited`` under their
        own numbers, belongs to the caller's control group, and dies with the returned process.

        Returns:
            the process to wait for or kill, and the SOCK_SEQPACKET end to talk to CRIU.
        """
        raise NotImplementedError


def delete_folder(folder: Path, cgroup: str) -> None:
    """End and remove what ``instance.json`` in ``folder`` names, dead or half made. Idempotent."""
    raise NotImplementedError


def delete_all(runtime_dir: Path, cgroup: str) -> None:
    """End and remove every sandbox of the orchestrator, its control groups, mounts and folders."""
    raise NotImplementedError
