# SPDX-License-Identifier: Apache-2.0
"""Trial restores of a snapshot, in the sandbox of a clone before it is armed.

Each is done as a wake is: a fresh CRIU that waits, fresh writable layers, and the time from the
request sent to CRIU's answer, which is what the restore limit bounds. All count, the first one too:
so would a first client. Only the first goes on, with the outside cut off, and has to answer the
warm-up; CRIU leaves the others stopped.
"""

from __future__ import annotations

import math
import statistics
import time
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_snapshotter import criu, errors, netns, processes, warmup
from aetherless_snapshotter.instance import last_part
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_events import WakeFailure, describe_exit
from aetherless_snapshotter.seal import sealed

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_snapshotter.instance import Instance
    from aetherless_snapshotter.sandbox import Sandbox
    from aetherless_snapshotter.sandbox_events import Wake

log = structlog.get_logger()
#: How many restores are tried unless the call says otherwise, and at most.
RESTORES = 10
MOST_RESTORES = 100
#: A restore that takes this much longer than its limit is not waited for any more.
_PATIENCE_MS = 30_000
_CRIU_SECONDS = 10.0
_POLL_SECONDS = 0.001
#: What a limit should leave above the longest restore, and above twice the median, that was seen.
_ROOM = 1.5
#: The number of the socket that ``criu swrk`` waits on for its request.
_CRIU_SOCKET = 3


def _look_at_nothing(root_pid: int, trial: snapshot_pb2.Trial) -> None:
    """Learn nothing of the restored tree."""


@dataclass
class TrialRun:
    """Some restores of one clone's snapshot.

    Attributes:
        look: called with the host's id of the root process once the first restore has answered the
            warm-up, before it is ended; what it learns it notes in the trial.
    """

    instance: Instance
    sandbox: Sandbox
    restores: int = RESTORES
    look: Callable[[int, snapshot_pb2.Trial], None] = _look_at_nothing
    _trial: snapshot_pb2.Trial = field(default_factory=snapshot_pb2.Trial)

    def run(self) -> snapshot_pb2.Trial:
        """Do the restores; nothing of them is left, in memory or in files.

        Raises:
            AetherlessError: RESTORE_FAILED or MEMORY_LIMIT_EXCEEDED.
            SandboxError: the sandbox does not do what it should.
            OSError: its network can't be cut off.
        """
        times = []
        with sealed(self.sandbox.netns_path):
            for number in range(self.restores):
                with self._restored(stopped=number > 0) as wake:
                    times.append(wake.answer_ns - wake.sent_ns)
                    if number == 0:
                        self._answer(wake)
        return self._summarize(times)

    @contextmanager
    def _restored(self, *, stopped: bool) -> Iterator[Wake]:
        """Restore once; the tree, and what it wrote, is gone afterwards."""
        limit_ms = self.instance.workload.restore_timeout.ToMilliseconds()
        request = criu.restore_request(leave_stopped=stopped)
        try:
            self.sandbox.begin_trial(request, deadline_ms=limit_ms + _PATIENCE_MS)
            self._await_criu()
            wake = self.sandbox.restore(timeout=2 * _PATIENCE_MS / 1000 + limit_ms / 1000)
            self._check(wake)
            yield wake
        finally:
            self.sandbox.kill_tree()

    def _await_criu(self) -> None:
        """Wait until CRIU waits for its request, as one in an armed sandbox does."""
        until = time.monotonic() + _CRIU_SECONDS
        while not any(
            processes.waits_on(pid, _CRIU_SOCKET)
            for pid in processes.children(self.sandbox.init_pid)
        ):
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

    def _answer(self, wake: Wake) -> None:
        """Have the restored tree answer the warm-up."""
        workload = self.instance.workload
        root_pid = processes.host_pid(self.sandbox.init_pid, wake.root_pid)
        if workload.warmup.kind != instance_pb2.WARMUP_KIND_NONE:
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
                raise self._failed(f"once restored, it gave no answer: {error}") from error
            self._trial.first_answer.FromNanoseconds(time.monotonic_ns() - wake.sent_ns)
        self._check_alive(wake.root_pid)
        self.look(root_pid, self._trial)

    def _listener(self) -> netns.TcpSocket:
        """Return a socket that listens on the port."""
        with netns.TcpTable(self.sandbox.netns_path) as table:
            listeners = table.listeners(self.instance.workload.trigger_port)
        if not listeners:
            raise self._failed("once restored, nothing listens on its port")
        return listeners[0]

    def _check_alive(self, sandbox_root_pid: int) -> None:
        """Raise when the restored tree has ended."""
        if processes.host_pid(self.sandbox.init_pid, sandbox_root_pid):
            return
        workload, ended = self.instance.workload, self.instance.root_exit
        if ended is not None and ended.out_of_memory:
            raise errors.memory_limit_exceeded(workload.function_id, workload.memory_limit_bytes)
        raise self._failed(f"once restored, it ended with {describe_exit(ended)}")

    def _failed(self, cause: str) -> Exception:
        function = self.instance.workload.function_id
        return errors.restore_failed(function, last_part(self.instance.snapshot), cause)

    def _summarize(self, times: list[int]) -> snapshot_pb2.Trial:
        """Note what the times show."""
        for each in times:
            self._trial.restores.add().FromNanoseconds(each)
        self._trial.median.FromNanoseconds(round(statistics.median(times)))
        self._trial.maximum.FromNanoseconds(max(times))
        self._trial.suggested_timeout.FromMilliseconds(suggested_ms(times))
        return self._trial


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
