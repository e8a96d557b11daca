# SPDX-License-Identifier: Apache-2.0
"""One sandbox, seen from the host: made, driven, adopted after a restart, and deleted.

Only this module (and what it imports) speaks the control protocol of ``init/README.md``.
"""

from __future__ import annotations

import contextlib
import os
import queue
import socket
import subprocess
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import structlog

from aetherless_snapshotter import files, launcher, mountfd
from aetherless_snapshotter.cgroup import InstanceGroup
from aetherless_snapshotter.control import Control, Line, write_line
from aetherless_snapshotter.endpoint import Endpoint, open_endpoint
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_events import (
    Armed,
    Event,
    Quiesced,
    RootExited,
    SandboxEnded,
    SandboxState,
    SandboxStatus,
    Wake,
    Woke,
)
from aetherless_snapshotter.sandbox_record import (
    Record,
    delete_all,
    delete_folder,
    last_words,
    open_init,
)
from aetherless_snapshotter.sandbox_reports import read_event, read_status, read_wake

if TYPE_CHECKING:
    from contextlib import AbstractContextManager

    from aetherless_snapshotter.sandbox_spec import SandboxSpec

__all__ = ["Endpoint", "EventHandler", "Quiesced", "Sandbox", "delete_all", "delete_folder"]

log = structlog.get_logger()
EventHandler = Callable[[Event], None]

_CLEARING_SECONDS = 60.0


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

    def __init__(
        self, record: Record, folder: Path, pidfd: int, on_event: EventHandler, sequence: int
    ) -> None:
        """Take hold of a living init; ``create`` and ``adopt`` are the ways to get here."""
        self.instance_id = record.instance_id
        self.folder = folder
        self.init_pid = record.pid
        self.start_time = record.start_time
        self.pidfd = pidfd
        self.netns_path = Path(f"/proc/{record.pid}/ns/net")
        self._record = record
        self._group = InstanceGroup(record.cgroup, record.instance_id)
        self._group.process_limit_newly_met()  # what was before is nobody's end
        self._on_event = on_event
        self._sequence = sequence
        self._open = True
        self._events: queue.SimpleQueue[Callable[[], None] | None] = queue.SimpleQueue()
        self._control = Control(
            record.instance_id, folder, pidfd, self._report, self._catch_up, self._ended
        )
        self._dispatcher = threading.Thread(
            target=self._dispatch, name=f"events-{record.instance_id}", daemon=True
        )
        self._dispatcher.start()
        self._control.start()

    @classmethod
    def create(cls, spec: SandboxSpec, on_event: EventHandler) -> Sandbox:
        """Make a sandbox; its pid, start time and control group are on disk before it is used.

        ``on_event`` is called on a thread of the sandbox's own, one event at a time.

        Raises:
            SandboxError: a step failed; nothing of the sandbox is left behind.
        """
        try:
            return cls._create(spec, on_event)
        except OSError as error:
            delete_folder(spec.folder, spec.cgroup)
            raise SandboxError(spec.instance_id, "create", str(error), error.errno or 0) from error
        except SandboxError:
            delete_folder(spec.folder, spec.cgroup)
            raise

    @classmethod
    def _create(cls, spec: SandboxSpec, on_event: EventHandler) -> Sandbox:
        spec.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        record = Record(spec.instance_id, spec.cgroup, str(spec.init_binary))
        record.write(spec.folder)
        group = InstanceGroup(spec.cgroup, spec.instance_id)
        group.make(spec.memory_limit, spec.pids_limit)
        launched = launcher.launch(spec, group)
        record = Record(
            spec.instance_id,
            spec.cgroup,
            str(spec.init_binary),
            launched.pid,
            launched.start_time,
        )
        record.write(spec.folder)
        return cls(record, spec.folder, launched.pidfd, on_event, 0)

    @classmethod
    def adopt(cls, folder: Path, on_event: EventHandler) -> Sandbox:
        """Take up the sandbox that an earlier process of the service left in ``folder``.

        Raises:
            SandboxGoneError: its init does not live, or was never complete; ``delete_folder``
                cleans.
        """
        record = Record.read(folder)
        pidfd = open_init(record, folder)
        try:
            sandbox = cls(record, folder, pidfd, on_event, 0)
        except SandboxError:
            os.close(pidfd)
            raise
        sandbox._sequence = sandbox.status().sequence
        return sandbox

    def close(self) -> None:
        """Let go of the sandbox without ending it (descriptors, connection, thread)."""
        if not self._open:
            return
        self._open = False
        self._control.close()
        self._events.put(None)
        if threading.current_thread() is not self._dispatcher:
            self._dispatcher.join()
        os.close(self.pidfd)

    def delete(self) -> None:
        """End the sandbox and all in it; remove its control groups and folder. Idempotent."""
        self.close()
        delete_folder(self.folder, self._record.cgroup)

    @property
    def root(self) -> Path:
        """Where the host sees the sandbox's root."""
        return Path(f"/proc/{self.init_pid}/root")

    def layer(self, tag: str) -> AbstractContextManager[int]:
        """Give a descriptor of a tree's upper layer, as long as the context lasts.

        It lies in the sandbox, where a program with capabilities may have put links in its way.
        """
        return files.opened_beneath(self.root, "layers", tag, "u")

    def kill_processes(self) -> None:
        """End the processes of the tree from outside; the init does as when they ended."""
        self._group.kill_tree()

    def tree_processes(self) -> list[int]:
        """Return the processes of the tree's group, by their ids on this host."""
        return self._group.tree_processes()

    def unreclaimable(self) -> int:
        """Return the bytes of the tree's memory that have no file on a disk behind them."""
        return self._group.unreclaimable()

    def process_limit_met(self) -> int:
        """Return the limit of processes and threads when the tree has met it, else 0."""
        return self._group.process_limit_met()

    def status(self) -> SandboxStatus:
        """Ask the init what it does."""
        return read_status(self._control.ask("status")[-1])

    def wakes_since(self, sequence: int) -> list[Wake]:
        """Return the kept wakes (the newest 64) with a number above ``sequence``, oldest first."""
        answer = self._control.ask(write_line("wakes", since=sequence))
        return [read_wake(line) for line in answer[:-1]]

    def spawn(
        self, argv: Sequence[str], env: Mapping[str, str], cwd: str, *, container: bool = False
    ) -> int:
        """Start the golden program and return its pid inside; its end comes as ``RootExited``.

        It runs as uid 1000 without capabilities (``container``: as uid 0 with those of
        CAPABILITY_SET_CONTAINER) and with no_new_privs, in a session of its own, with a high pid,
        stdin from /dev/null, stdout and stderr to the log, in group ``tree``.

        Raises:
            SandboxError: exec failed (``errno`` says why) or a program runs already.
        """
        words = [str(len(argv)), *argv, *(f"{key}={value}" for key, value in env.items())]
        payload = b"".join(os.fsencode(word) + b"\0" for word in words)
        line = write_line("spawn", cwd=cwd, container=int(container))
        return self._control.ask(line, payload)[-1].number("pid")

    def open_handler_socket(self) -> None:
        """Listen on HANDLER_SOCKET inside; READY on it comes as ``HandlerReady``."""
        self._control.ask("handler-open")

    def close_handler_socket(self) -> None:
        """Close all ends of HANDLER_SOCKET that are ours."""
        self._control.ask("handler-close")

    def quiesce(self, port: int) -> Quiesced:
        """End the TCP connections whose peer is outside; those to ``port`` count as inbound."""
        answer = self._control.ask(write_line("quiesce", port=port))[-1]
        return Quiesced(answer.number("inbound"), answer.number("outbound"))

    def attach_snapshot(self, images: Path) -> None:
        """Mount the one folder of images read-only at /snap (its files 0444)."""
        with self._step("snapshot"):
            mount = mountfd.open_read_only_mount(images)
        try:
            self._control.ask("snapshot", descriptors=[mount])
        finally:
            os.close(mount)

    def begin_trial(self, request: bytes, *, deadline_ms: int) -> None:
        """Have CRIU wait for ``request``, a serialized ``criu_req`` of type RESTORE."""
        line = write_line("try", deadline_ms=deadline_ms)
        self._control.ask(line, request)

    def restore(self, timeout: float) -> Wake:
        """Restore on trial; return how it went (its number is 0) once CRIU answered.

        What was restored stays until ``kill_tree``.
        """
        return read_wake(self._control.ask("restore", timeout=timeout)[0])

    def arm(
        self,
        request: bytes,
        *,
        port: int,
        deadline_ms: int,
        idle_after_ms: int,
        endpoint: Endpoint,
        answer_within_ms: int = 30000,
    ) -> None:
        """Hold first packets to ``port`` from now on; the first restores with ``request``.

        Args:
            request: a serialized ``criu_req`` of type RESTORE.
            port: the trigger port; 0 for none, then nothing is held and only ``wake`` restores.
            deadline_ms: longest time from the first packet to CRIU's answer.
            idle_after_ms: evict after this long without a connection and anything in flight; 0
                never does.
            endpoint: the sandbox's link and addresses.
            answer_within_ms: how long a request that may have come right after an answer (the
                kernel's clock tick can't tell) is taken for one without an answer.
        """
        inner = {"v4": endpoint.inner_ipv4}
        if endpoint.inner_ipv6:
            inner["v6"] = endpoint.inner_ipv6
        line = write_line(
            "arm",
            port=port,
            deadline_ms=deadline_ms,
            idle_ms=idle_after_ms,
            tie_ms=answer_within_ms,
            link=endpoint.host_link,
            slot=endpoint.slot,
            **inner,
        )
        with contextlib.ExitStack() as handed:
            with self._step("arm"):
                descriptors = open_endpoint(endpoint, self.netns_path, handed)
            self._control.ask(line, request, descriptors)

    def wake(self, timeout: float = 120.0) -> Wake | None:
        """Restore now; return the wake (failed ones too), or None when the tree runs already."""
        answer = self._control.ask("wake", timeout=timeout)[-1]
        if not answer.number("woke"):
            return None
        return self.wakes_since(answer.number("sequence") - 1)[0]

    def touch(self) -> None:
        """Have the idle time begin anew."""
        self._control.ask("touch")

    def evict(self, last_call_ms: int = 0) -> None:
        """End the running tree and arm again; returns when the sandbox is armed. Idempotent.

        With a last call it takes no further request, answers what it took, and is not refused.

        Raises:
            InFlightError: a request is in flight; the tree goes on running.
        """
        line = write_line("evict", hold_ms=last_call_ms)
        self._control.ask(line, timeout=_CLEARING_SECONDS + last_call_ms / 1000)

    def kill_tree(self) -> None:
        """End all processes of the tree (a golden's, or one restored on trial), and what it wrote.

        Returns when the tree is empty.
        """
        self._control.ask("kill-tree", timeout=_CLEARING_SECONDS)

    def spawn_host_criu(
        self, criu: int, inherited: Sequence[int] = ()
    ) -> tuple[subprocess.Popen[bytes], socket.socket]:
        """Start ``criu swrk`` in all namespaces of the sandbox but the user namespace.

        It is executed by the descriptor ``criu``, has the descriptors ``inherited`` under their
        own numbers, belongs to the caller's control group, and dies with the returned process.

        Returns:
            the process to wait for or kill, and the SOCK_SEQPACKET end to talk to CRIU.
        """
        ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        numbers = (self.pidfd, criu, theirs.fileno())
        try:
            process = subprocess.Popen(
                [self._record.init_binary, "enter", *(str(number) for number in numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=[*numbers, *inherited],
                env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "CRIU_FAULT": "130"},
            )
        except OSError as error:
            ours.close()
            raise SandboxError(self.instance_id, "enter", str(error), error.errno or 0) from error
        finally:
            theirs.close()
        return process, ours

    # Helpers

    @contextlib.contextmanager
    def _step(self, step: str) -> Iterator[None]:
        """Give the kernel's refusals on the host's side their step."""
        try:
            yield
        except OSError as error:
            raise SandboxError(self.instance_id, step, str(error), error.errno or 0) from error
        except ValueError as error:
            raise SandboxError(self.instance_id, step, str(error)) from error

    def _report(self, line: Line) -> None:
        event = read_event(line)
        if isinstance(event, Woke):
            self._sequence = event.wake.sequence
        if isinstance(event, RootExited):
            event = replace(event, process_limit=self._group.process_limit_newly_met())
        self._events.put(lambda: self._on_event(event))

    def _catch_up(self) -> None:
        """After a lost connection: tell what was missed, by asking on the events' own thread."""
        since = self._sequence
        self._events.put(lambda: self._tell_missed(since))

    def _tell_missed(self, since: int) -> None:
        for wake in self.wakes_since(since):
            self._on_event(Woke(wake))
        status = self.status()
        if status.state is SandboxState.ARMED:
            self._on_event(Armed(status.generation))

    def _ended(self) -> None:
        event = SandboxEnded(last_words(self.folder))
        self._events.put(lambda: self._on_event(event))

    def _dispatch(self) -> None:
        """Call the handler for each event; one that fails is logged, the next ones still come."""
        while (tell := self._events.get()) is not None:
            try:
                tell()
            except Exception:
                log.exception("event handler failed", instance=self.instance_id)
