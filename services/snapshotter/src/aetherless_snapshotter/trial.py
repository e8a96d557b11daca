# SPDX-License-Identifier: Apache-2.0
"""Trial restores of a snapshot, in the sandbox of a clone before it is armed.

Each is done as a wake is: a fresh CRIU that waits, fresh writable layers, and the time from the
request sent to CRIU's answer, which is what the restore limit bounds. All count, the first one too:
so would a first client. The first goes on, with the outside cut off, and has to answer the warm-up;
so do those by which it is chosen how written pages are restored. CRIU leaves the others stopped.
"""

from __future__ import annotations

import math
import statistics
import threading
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_common.errors import AetherlessError
from aetherless_snapshotter import (
    criu,
    eager,
    errors,
    files,
    netns,
    page_choice,
    processes,
    warmup,
)
from aetherless_snapshotter.instance import last_part
from aetherless_snapshotter.page_choice import Answered
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_events import WakeFailure, describe_exit
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET
from aetherless_snapshotter.seal import sealed

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless_snapshotter.cow_plan import Interval
    from aetherless_snapshotter.instance import Instance
    from aetherless_snapshotter.manifest import Manifest
    from aetherless_snapshotter.sandbox import Sandbox
    from aetherless_snapshotter.sandbox_events import Wake
    from aetherless_snapshotter.store import SnapshotStore

log = structlog.get_logger()
#: How many restores are tried unless the call says otherwise, and at most.
RESTORES = 10
MOST_RESTORES = 100
_NO_ANSWER = (
    "a restore that is tried reaches nothing outside its sandbox: let the program answer so too, or"
    " name a warmup.path that needs nothing"
)
#: A restore that takes this much longer than its limit is not waited for any more.
_PATIENCE_MS = 30_000
_CRIU_SECONDS = 10.0
_POLL_SECONDS = 0.001
#: What a limit should leave above the longest restore, and above twice the median, that was seen.
_ROOM = 1.5
#: The number of the socket that ``criu swrk`` waits on for its request.
_CRIU_SOCKET = 3


class TrialGivenUpError(Exception):
    """Nobody waits for the trial any more: the call that asked for it was cancelled."""


@dataclass
class TrialRun:
    """Some restores of one clone's snapshot.

    Attributes:
        images_dir: the images to restore, as the sandbox sees them.
        choose_in: where these lie on the host, for a choice of the pages to copy; None leaves
            everything as it is.
        before: the trial of the function's newest other snapshot, whose choice may hold.
    """

    instance: Instance
    sandbox: Sandbox
    restores: int = RESTORES
    images_dir: str = SNAPSHOT_TARGET
    choose_in: Path | None = None
    before: snapshot_pb2.Trial | None = None
    _written: dict[int, list[Interval]] = field(default_factory=dict)
    _lock: threading.Lock = field(default_factory=threading.Lock)
    _going: bool = False
    _given_up: bool = False

    def give_up(self) -> None:
        """End it at once; any thread may call this, also before and after the restores."""
        with self._lock:
            self._given_up = True
            if self._going:
                self.sandbox.kill_processes()

    def of_snapshot(self, manifest: Manifest, store: SnapshotStore) -> snapshot_pb2.Trial:
        """Do the restores of a stored snapshot; the first trial of it chooses the pages to copy.

        Raises:
            AetherlessError: as ``run``, and STORAGE_FULL or SANDBOX_FAILED.
            TrialGivenUpError: ``give_up`` was called.
        """
        snapshot_id = last_part(self.instance.snapshot)
        if not manifest.snapshot.HasField("trial") and self.images_dir == SNAPSHOT_TARGET:
            self.choose_in = store.images(snapshot_id)
            self.before = store.last_trial(self.instance.workload.function_id, snapshot_id)
        try:
            trial = self.run()
        except (OSError, SandboxError) as error:
            if isinstance(error, OSError) and files.is_full(error):
                raise store.full(manifest.snapshot.resident_bytes) from error
            raise errors.sandbox_failed(self.instance.instance_id, str(error)) from error
        if self.choose_in is None:
            page_choice.carry_over(manifest.snapshot.trial, trial)
        elif trial.page_choice == snapshot_pb2.PAGE_CHOICE_EAGER:
            store.keep_eager(snapshot_id)
        return trial

    def run(self) -> snapshot_pb2.Trial:
        """Do the restores; nothing of them is left, in memory or in files.

        Raises:
            AetherlessError: RESTORE_FAILED or MEMORY_LIMIT_EXCEEDED.
            SandboxError: the sandbox does not do what it should.
            OSError: its network can't be cut off, or the chosen pages find no room.
            TrialGivenUpError: ``give_up`` was called.
        """
        try:
            return self._measured()
        except (AetherlessError, SandboxError):
            self._go_on()
            raise

    def _measured(self) -> snapshot_pb2.Trial:
        """Do the restores."""
        trial = snapshot_pb2.Trial()
        with sealed(self.sandbox.netns_path):
            answered = [self._answered(self.images_dir)]
            if self.choose_in is not None and self._asks:
                self.images_dir, answered = page_choice.choose(
                    self.choose_in,
                    answered[0],
                    self._written,
                    self._answered,
                    trial,
                    self.before,
                )
            times = [each.restore_ns for each in answered]
            while len(times) < self.restores:
                with self._restored(self.images_dir, stopped=True) as wake:
                    times.append(wake.answer_ns - wake.sent_ns)
        if self._asks:
            trial.first_answer.FromNanoseconds(answered[0].answer_ns)
        return _summarize(trial, times)

    @property
    def _asks(self) -> bool:
        """Whether a restored tree has to answer something."""
        return self.instance.workload.warmup.kind != instance_pb2.WARMUP_KIND_NONE

    def _answered(self, images_dir: str) -> Answered:
        """Restore, and have the tree answer the warm-up."""
        with self._restored(images_dir, stopped=False) as wake:
            answer_ns = self._answer(wake)
            self._check_alive(wake.root_pid)
            root_pid = processes.host_pid(self.sandbox.init_pid, wake.root_pid)
            if not self._written:
                self._written = eager.written(root_pid)
            return Answered(wake.answer_ns - wake.sent_ns, answer_ns)

    @contextmanager
    def _restored(self, images_dir: str, *, stopped: bool) -> Iterator[Wake]:
        """Restore once; the tree, and what it wrote, is gone afterwards."""
        limit_ms = self.instance.workload.restore_timeout.ToMilliseconds()
        request = criu.restore_request(images_dir, leave_stopped=stopped)
        with self._lock:
            self._go_on()
            self._going = True
        try:
            self.sandbox.begin_trial(request, deadline_ms=limit_ms + _PATIENCE_MS)
            self._await_criu()
            wake = self.sandbox.restore(timeout=2 * _PATIENCE_MS / 1000 + limit_ms / 1000)
            self._check(wake)
            yield wake
        finally:
            with self._lock:
                self._going = False
            self.sandbox.kill_tree()

    def _await_criu(self) -> None:
        """Wait until CRIU waits for its request, as one in an armed sandbox does."""
        until = time.monotonic() + _CRIU_SECONDS
        while not any(
            processes.waits_on(pid, _CRIU_SOCKET)
            for pid in processes.children(self.sandbox.init_pid)
        ):
            self._go_on()
            if time.monotonic() > until:
                raise SandboxError(self.sandbox.instance_id, "try", "CRIU does not start")
            time.sleep(_POLL_SECONDS)

    def _check(self, wake: Wake) -> None:
        """Raise the typed error of a restore that failed."""
        workload = self.instance.workload
        match wake.failure:
            case WakeFailure.NONE:
                return
            case WakeFailure.OUT_OF_MEMORY:
                limit = workload.memory_limit_bytes
                raise errors.memory_limit_exceeded(workload.function_id, limit)
            case WakeFailure.LATE:
                raise self._failed(f"CRIU did not answer within {wake.limit_ms} ms")
            case _:
                raise self._failed(criu.cause_of(wake.error, wake.error))

    def _answer(self, wake: Wake) -> int:
        """Have the tree answer the warm-up; returns how long that took from the request."""
        workload = self.instance.workload
        if self._asks:
            until = time.monotonic() + workload.timeout.ToNanoseconds() / 1e9
            try:
                warmup.warm_up(
                    self.sandbox.netns_path,
                    self._listener(),
                    workload.warmup,
                    until,
                    lambda: self._check_alive(wake.root_pid),
                )
            except warmup.NoAnswerError as error:
                cause = f"once restored, it gave no answer: {error}"
                raise self._failed(cause, _NO_ANSWER) from error
        return time.monotonic_ns() - wake.sent_ns

    def _listener(self) -> netns.TcpSocket:
        """Return a socket that listens on the port."""
        with netns.TcpTable(self.sandbox.netns_path) as table:
            listeners = table.listeners(self.instance.workload.trigger_port)
        if not listeners:
            raise self._failed("once restored, nothing listens on its port")
        return listeners[0]

    def _check_alive(self, sandbox_root_pid: int) -> None:
        """Raise when the restored tree has ended, or nobody waits for it any more."""
        self._go_on()
        if processes.host_pid(self.sandbox.init_pid, sandbox_root_pid):
            return
        workload, ended = self.instance.workload, self.instance.root_exit
        if ended is not None and ended.out_of_memory:
            raise errors.memory_limit_exceeded(workload.function_id, workload.memory_limit_bytes)
        raise self._failed(f"once restored, it ended with {describe_exit(ended)}")

    def _go_on(self) -> None:
        """End here when nobody waits any more."""
        if self._given_up:
            raise TrialGivenUpError

    def _failed(self, cause: str, remedy: str = "") -> Exception:
        function, snapshot = self.instance.workload.function_id, last_part(self.instance.snapshot)
        more = {"remedy": remedy} if remedy else {}
        return errors.restore_failed(function, snapshot, cause, **more)


def _summarize(trial: snapshot_pb2.Trial, times: list[int]) -> snapshot_pb2.Trial:
    """Note what the times of restores show."""
    for each in times:
        trial.restores.add().FromNanoseconds(each)
    trial.median.FromNanoseconds(round(statistics.median(times)))
    trial.maximum.FromNanoseconds(max(times))
    trial.suggested_timeout.FromMilliseconds(suggested_ms(times))
    return trial


def suggested_ms(times: list[int]) -> int:
    """Return the restore limit, in milliseconds, that would do for times in nanoseconds."""
    needed = max(_ROOM * max(times), 2 * statistics.median(times))
    return math.ceil(needed / 1e6)


def hold_to_limit(workload: instance_pb2.Workload, trial: snapshot_pb2.Trial) -> None:
    """Refuse a snapshot whose longest restore took longer than its function allows.

    Raises:
        DeadlineExceeded: RESTORE_LATENCY_VIOLATION, with the times and the limit that would do.
    """
    limit = workload.restore_timeout
    if trial.maximum.ToNanoseconds() > limit.ToNanoseconds():
        raise errors.restores_too_slow(
            workload.function_id,
            limit.ToMilliseconds(),
            trial.median.ToNanoseconds() / 1e6,
            trial.maximum.ToNanoseconds() / 1e6,
            trial.suggested_timeout.ToMilliseconds(),
        )
    if 2 * trial.median.ToNanoseconds() > limit.ToNanoseconds():
        log.warning(
            "restores near their limit",
            function=workload.function_id,
            limit_ms=limit.ToMilliseconds(),
            median_ms=trial.median.ToNanoseconds() / 1e6,
            suggested_ms=trial.suggested_timeout.ToMilliseconds(),
        )
