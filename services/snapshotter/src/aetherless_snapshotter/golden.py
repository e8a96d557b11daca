# SPDX-License-Identifier: Apache-2.0
"""Making a snapshot: a list of named steps, from starting the golden to publishing its images."""

from __future__ import annotations

import errno
import os
import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError
from aetherless_snapshotter import (
    allocators,
    channels,
    cow,
    criu,
    dump,
    errors,
    files,
    hostfiles,
    images,
    inodes,
    netns,
    processes,
    warmup,
)
from aetherless_snapshotter.handler_watch import HandlerWatch
from aetherless_snapshotter.inspection import Found, Inspection
from aetherless_snapshotter.manifest import IMAGES, Manifest
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.store import LAYERS
from aetherless_snapshotter.workload import is_container

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless_snapshotter.sandbox_spec import HeldFile
    from aetherless_snapshotter.workshop import Golden, Workshop

log = structlog.get_logger()
_POLL_SECONDS = 0.01
_QUIET_SECONDS = 2.0
#: A peer of a Unix socket that connected and closed before it was accepted refuses a dump once.
_DUMP_TRIES = 2


class GivenUpError(Exception):
    """Nobody wants the snapshot any more: the call that asked for it was cancelled."""


@dataclass
class SnapshotRun:
    """One making of a snapshot. ``phases`` drives it; its steps are methods in that order.

    Attributes:
        wanted: whether somebody still waits for the snapshot.
        manifest: the published snapshot's; None before.
    """

    snapshot_id: str
    golden: Golden
    workshop: Workshop
    wanted: Callable[[], bool] = lambda: True
    manifest: Manifest | None = None
    root_pid: int = 0
    _needed: int = 0
    _done: list[snapshot_pb2.SnapshotPhase] = field(default_factory=list)
    _listeners: list[netns.TcpSocket] = field(default_factory=list)
    _resident_bytes: int = 0
    _held: list[HeldFile] = field(default_factory=list)
    _memory: cow.Conversion = field(default_factory=lambda: cow.Conversion(0, 0, 0))
    _counting_on_zeros: frozenset[int] = frozenset()
    _inspection: Inspection = field(init=False)
    _watch: HandlerWatch = field(init=False)

    def __post_init__(self) -> None:
        self._inspection = Inspection(self.golden)

    def phases(self) -> Iterator[snapshot_pb2.SnapshotPhase | Found]:
        """Do all steps, yielding when each begins, ends or fails; the tree is ended in any case.

        What the program holds is yielded before the step that found it ends.

        Ends early, without a manifest, when the snapshot is not wanted any more.

        Raises:
            AetherlessError: the typed error of the step that failed.
        """
        published = False
        try:
            for name, step in self._steps():
                yield from self._phase(name, step)
            published = True
        except GivenUpError:
            log.info("snapshot given up", snapshot=self.snapshot_id)
        finally:
            self._end_tree()
            if not published:
                self.workshop.store.discard(self.snapshot_id)

    def _steps(self) -> tuple[tuple[str, Callable[[], str]], ...]:
        """Return the steps in their order."""
        detach = ("detach", self._detach)
        return (
            ("start", self._start),
            ("ready", self._ready),
            ("warm-up", self._warm_up),
            *([detach] if self.golden.workload.ipc else []),
            ("quiesce", self._quiesce),
            ("inspect", self._inspect),
            ("dump", self._dump),
            ("copy-files", self._copy_files),
            ("images", self._images),
            ("copy-on-write", self._copy_on_write),
            ("manifest", self._manifest),
            ("publish", self._publish),
        )

    def _phase(
        self, name: str, step: Callable[[], str]
    ) -> Iterator[snapshot_pb2.SnapshotPhase | Found]:
        """Do one step."""
        phase = snapshot_pb2.SnapshotPhase
        yield phase(name=name, state=snapshot_pb2.PHASE_STATE_STARTED)
        begun = time.monotonic_ns()
        try:
            detail = self._traced(name, step)
        except AetherlessError as error:
            failed = phase(name=name, state=snapshot_pb2.PHASE_STATE_FAILED)
            failed.detail = error.message
            failed.duration.FromNanoseconds(time.monotonic_ns() - begun)
            yield from self._inspection.news()
            yield failed
            raise
        done = phase(name=name, state=snapshot_pb2.PHASE_STATE_DONE, detail=detail)
        done.duration.FromNanoseconds(time.monotonic_ns() - begun)
        self._done.append(done)
        log.info("phase", snapshot=self.snapshot_id, phase=name, detail=detail)
        yield from self._inspection.news()
        yield done

    def _traced(self, name: str, step: Callable[[], str]) -> str:
        """Do one step as a span, with errors of the contract."""
        with tracing.span(name, attributes={"aetherless.snapshot": self.snapshot_id}):
            try:
                return step()
            except (AetherlessError, SandboxError, OSError) as error:
                raise self._typed(error) from error

    def _typed(self, error: AetherlessError | SandboxError | OSError) -> AetherlessError:
        """Return an error of the contract for one of the sandbox, or for a full store.

        Raises:
            OSError: it is of another kind, and so a fault of ours.
        """
        if isinstance(error, AetherlessError):
            return error
        if isinstance(error, SandboxError):
            return errors.sandbox_failed(self.golden.sandbox.instance_id, error.detail)
        if not files.is_full(error):
            raise error
        return self.workshop.store.full(self._needed)

    # Steps

    def _start(self) -> str:
        """Start the handler; its readiness timeout begins."""
        program, workload = self.golden.program, self.golden.workload
        self._watch = HandlerWatch(self.golden, self.workshop.logs)
        sandbox = self.golden.sandbox
        sandbox.open_handler_socket()
        try:
            self.root_pid = sandbox.spawn(
                program.command,
                program.environment,
                program.folder,
                container=is_container(workload),
            )
        except SandboxError as error:
            if not error.errno:
                raise
            raise errors.handler_not_executable(
                workload.handler_path, os.strerror(error.errno)
            ) from error
        return f"{' '.join(program.command)}, process {self.root_pid} of the sandbox"

    def _ready(self) -> str:
        """Wait until somebody in the sandbox listens on the port, or serves its channel alone."""
        port = self.golden.workload.trigger_port
        with netns.TcpTable(self.golden.sandbox.netns_path) as table:
            while not (found := table.listeners(port)):
                if channels.is_enough(self.golden):
                    return "attached to its channel"
                self._check_alive()
                if time.monotonic() >= self._watch.deadline:
                    raise self._watch.ready_timeout()
                time.sleep(_POLL_SECONDS)
        self._listeners = found
        return f"listens on {', '.join(sorted({one.place for one in found}))}"

    def _warm_up(self) -> str:
        """Get the first answer, and look again who listens."""
        if not self._listeners:
            return "none asked for"
        workload = self.golden.workload
        path = self.golden.sandbox.netns_path
        try:
            said = warmup.warm_up(
                path, self._listeners[0], workload.warmup, self._watch.deadline, self._check_alive
            )
        except warmup.NoAnswerError as error:
            raise self._watch.warmup_failed(str(error)) from error
        with netns.TcpTable(path) as table:
            self._listeners = table.listeners(workload.trigger_port) or self._listeners
        self._watch.check_handover(self.root_pid, self._listeners)
        return said

    def _detach(self) -> str:
        """Have the program let go of its channel: no attachment outlives a checkpoint."""
        said = channels.let_go(self.golden, self.workshop.channels)
        self._check_alive()
        return said

    def _quiesce(self) -> str:
        """Leave nothing that ties the tree to the outside, or to our warm-up."""
        port = self.golden.workload.trigger_port
        sandbox = self.golden.sandbox
        sandbox.close_handler_socket()
        until = time.monotonic() + _QUIET_SECONDS
        with netns.TcpTable(sandbox.netns_path) as table:
            while table.connections(port) and time.monotonic() < until:
                time.sleep(_POLL_SECONDS)
        self._inspection.note_connections()
        ended = sandbox.quiesce(port)
        self._check_alive()
        return f"ended {ended.inbound} inbound and {ended.outbound} outbound connections"

    def _inspect(self) -> str:
        """Look at what the program holds; one that ends meanwhile is told as ended."""
        try:
            return self._inspection.look(self.root_pid)
        except AetherlessError as error:
            if error.reason == "SANDBOX_FAILED":
                self._watch.check_end()
            raise

    def _dump(self) -> str:
        """Checkpoint the tree; it stays stopped."""
        self._needed = self.golden.sandbox.unreclaimable()
        self.workshop.store.require(self._needed)
        for attempt in range(1, _DUMP_TRIES + 1):
            answer, text = dump.dump(
                self.golden.sandbox,
                self.workshop.criu_binary,
                self.workshop.store.begin(self.snapshot_id) / IMAGES,
                self.root_pid,
            )
            if answer.success:
                size = images.resident_bytes(self._staging / IMAGES)
                return f"{size >> 10} KiB of memory"
            if attempt < _DUMP_TRIES and "in-flight" in text:
                continue
            break
        self._watch.check_end()
        if os.strerror(errno.ENOSPC) in text:
            raise self.workshop.store.full(self._needed)
        raise criu.refusal(self.golden.workload.function_id, text, answer.words)

    def _copy_files(self) -> str:
        """Copy the golden's writable trees while it is stopped, then end it."""
        function, copied = self.golden.workload.function_id, 0
        written = images.files_open_for_writing(self._staging / IMAGES)
        for tree in self.golden.trees:
            with self.golden.sandbox.layer(tree.tag) as layer:
                copied += files.copy_layer(layer, self._staging / LAYERS / tree.tag)
                self._held += inodes.held_files(function, tree, layer, written)
        root = processes.host_pid(self.golden.sandbox.init_pid, self.root_pid)
        if not root:
            self._watch.check_end()
        self._counting_on_zeros = allocators.counting_on_zeros(root)
        self._end_tree()
        return f"{copied >> 10} KiB in {len(self.golden.trees)} trees"

    def _images(self) -> str:
        """Prepare the images for restores from inside a sandbox."""
        folder = self._staging / IMAGES
        raised = images.raise_backlogs(folder)
        closed = images.close_outside(folder)
        images.adopt_user_namespace(folder, self.root_pid)
        return f"raised the backlog of {raised} listeners, closed {closed} outside connections"

    def _copy_on_write(self) -> str:
        """Let clones share the memory that they don't write."""
        self._resident_bytes = images.resident_bytes(self._staging / IMAGES)
        kept = self._counting_on_zeros
        self._memory = cow.convert(self._staging / IMAGES, keep_anonymous=kept)
        return (
            f"{self._memory.shared_bytes >> 10} KiB shared in {self._memory.parts} parts,"
            f" {self._memory.eager_bytes >> 10} KiB copied by each restore"
            + (f", as jemalloc wants it in {len(kept)} processes" if kept else "")
        )

    def _manifest(self) -> str:
        """Write down what the snapshot is and what each file holds."""
        folder = self._staging / IMAGES
        workload = self.golden.workload
        snapshot = snapshot_pb2.Snapshot(
            name=f"snapshots/{self.snapshot_id}",
            function_id=workload.function_id,
            revision=workload.revision,
            resident_bytes=self._resident_bytes,
            shared_bytes=self._memory.shared_bytes,
            eager_bytes=self._memory.eager_bytes,
            listen_families=netns.families(self._listeners),
            criu_version=self.workshop.fingerprint.criu,
            kernel_release=self.workshop.fingerprint.kernel,
            phases=self._done,
            findings=self._inspection.findings,
        )
        snapshot.create_time.GetCurrentTime()
        for process in images.process_tree(folder):
            snapshot.processes.add(
                pid=process.pid,
                parent_pid=process.parent_pid,
                command=process.command,
                threads=process.threads,
            )
        self.manifest = self.workshop.store.seal(
            self.snapshot_id,
            Manifest(
                snapshot=snapshot,
                workload=workload,
                program=self.golden.program,
                root_pid=self.root_pid,
                fingerprint=self.workshop.fingerprint,
                trees={tree.tag: tree.target for tree in self.golden.trees},
                held=tuple(self._held),
                host_files=hostfiles.record(images.regular_files(folder), self.golden.sandbox.root),
            ),
        )
        processes = len(snapshot.processes)
        return f"{processes} processes, {len(self.manifest.files)} files hashed"

    def _publish(self) -> str:
        """Make the snapshot visible by one rename."""
        self.workshop.store.publish(self.snapshot_id)
        return f"snapshots/{self.snapshot_id}"

    # Helpers

    @property
    def _staging(self) -> Path:
        return self.workshop.store.staging(self.snapshot_id)

    def _end_tree(self) -> None:
        """End the golden's processes; a sandbox that is gone has none."""
        try:
            self.golden.sandbox.kill_tree()
        except SandboxError as error:
            log.warning("golden not ended", snapshot=self.snapshot_id, error=str(error))

    def _check_alive(self) -> None:
        """Raise what ended the handler, or GivenUpError when nobody waits for it any more."""
        if not self.wanted():
            raise GivenUpError
        self._watch.check()
