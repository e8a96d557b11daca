# SPDX-License-Identifier: Apache-2.0
"""Checks of programs: the steps of a deploy up to its trial restores, and all of it undone.

What a check makes has an id that no function can have. While it goes on the reconciler leaves that
id alone; then, or when this registry was killed within it, the reconciler removes what is left as
it removes everything that nobody declares.
"""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TypeVar

import structlog

from aetherless.registry.v1 import function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless.snapshotter.v1 import snapshot_pb2
from aetherless_common.errors import AetherlessError
from aetherless_registry import check_report, errors, names, resources, validation
from aetherless_registry.advance import RetryLaterError
from aetherless_registry.desired import StepKind
from aetherless_registry.steps import phase_progress

if TYPE_CHECKING:
    from collections.abc import Callable, Generator, Iterator

    from aetherless.snapshotter.v1 import instance_pb2, snapshotter_service_pb2
    from aetherless_common.channels import TypedCall, TypedStream
    from aetherless_registry.peers import Peers
    from aetherless_registry.reconciler import Reconciler

    Responses = Iterator[messages.CheckHandlerResponse]

log = structlog.get_logger()
MOST_RESTORES = 100
# Each has a sandbox as large as its function's, and its restores are measured.
MOST_CHECKS = 4
# How long what a check made is being removed before it is left to the reconciler.
CLEARING_S = 20.0
RETRY_S = 0.1
SERVICES = ("snapshotter", "netplane")
# How long a service that was just started is waited for; without it the first step fails.
READY_S = 5.0
_REVISION = 1

T = TypeVar("T")


class CancelledError(Exception):
    """Nobody waits for the check any more."""


class Checks:
    """Begins checks. Safe for use by many threads.

    Args:
        peers: the services.
        reconciler: removes what a check made.
    """

    def __init__(self, peers: Peers, reconciler: Reconciler) -> None:
        self._peers = peers
        self._reconciler = reconciler
        self._lock = threading.Lock()
        self._running: set[Check] = set()

    def begin(self, request: messages.CheckHandlerRequest) -> Check:
        """Return a check of what is declared in the request; ``run`` does it.

        Raises:
            InvalidArgument: CONFIG_INVALID, or INVALID_ARGUMENT for the number of restores.
        """
        if not 0 <= request.restores <= MOST_RESTORES:
            raise errors.invalid_argument("restores", f"must be 0 to {MOST_RESTORES}")
        found = validation.violations([request.spec])
        if found:
            raise errors.config_invalid(found)
        return Check(request, self._peers, self._reconciler)

    def run(self, check: Check) -> Responses:
        """Do a check; see ``Check.run``.

        Raises:
            ResourceExhausted: TOO_MANY_CHECKS.
            AetherlessError: as ``Check.run``.
        """
        with self._lock:
            if len(self._running) >= MOST_CHECKS:
                raise errors.too_many_checks(MOST_CHECKS)
            self._running.add(check)
        try:
            yield from check.run()
        finally:
            with self._lock:
                self._running.discard(check)

    def stop(self) -> None:
        """Cancel all checks that go on."""
        with self._lock:
            running = list(self._running)
        for check in running:
            check.cancel()


class Check:
    """One check.

    Args:
        request: what to check.
        peers: the services.
        reconciler: removes what the check made.
    """

    def __init__(
        self, request: messages.CheckHandlerRequest, peers: Peers, reconciler: Reconciler
    ) -> None:
        self._function = request.spec.function_id
        self._id = names.check_id(self._function)
        self._restores = request.restores
        self._peers = peers
        self._reconciler = reconciler
        self._cancelled = threading.Event()
        self._call: TypedCall | TypedStream | None = None
        spec = function_pb2.FunctionSpec()
        spec.CopyFrom(request.spec)
        spec.function_id = self._id
        self._workload = resources.workload(spec, _REVISION)
        self._rules = resources.channel_rules(spec)

    def cancel(self) -> None:
        """Have it end soon: nobody waits for it any more."""
        self._cancelled.set()
        call = self._call
        if call is not None:
            call.cancel()

    def run(self) -> Responses:
        """Do the check, telling of each step, of the findings, and of the report.

        Whatever it made is removed in the end, however it ends.

        Raises:
            AetherlessError: as the service answered whose step failed.
        """
        self._reconciler.lend(self._id)
        try:
            yield from self._steps()
        except CancelledError:
            log.info("check cancelled", check=self._id)
        finally:
            self._clear()

    def _steps(self) -> Responses:
        """Do all steps."""
        peers, golden, clone = self._peers, self._golden, self._clone
        for service in (*SERVICES, *(["ipc"] if self._rules else [])):
            # A channel that found nobody a moment ago would refuse the first call.
            peers.answers(service, READY_S)
        started = yield from self._step(
            StepKind.CREATE_GOLDEN, lambda: peers.create_golden(golden, self._workload)
        )
        yield from self._step(StepKind.ATTACH_GOLDEN, lambda: self._attach(started))
        if rules := self._rules:
            yield from self._step(
                StepKind.CREATE_CHANNEL, lambda: peers.create_channel(self._id, rules)
            )
            yield from self._step(StepKind.ADMIT_GOLDEN, lambda: peers.admit(self._id, started))
        snapshot = yield from self._checkpoint()
        yield from self._step(StepKind.DELETE_GOLDEN, self._delete_golden)
        made = yield from self._step(
            StepKind.CREATE_INSTANCE,
            lambda: peers.create_clone(clone, self._workload, self._snapshot),
        )
        yield from self._step(StepKind.ATTACH_INSTANCE, lambda: self._attach(made))
        trial = yield from self._step(StepKind.TRY_SNAPSHOT, self._try)
        yield messages.CheckHandlerResponse(report=check_report.report(started, snapshot, trial))

    def _checkpoint(
        self,
    ) -> Generator[messages.CheckHandlerResponse, None, snapshot_pb2.Snapshot]:
        """Make the snapshot, telling of its phases and of what the program holds."""
        kind, begun = StepKind.CREATE_SNAPSHOT, time.monotonic_ns()
        yield self._told(kind, function_pb2.PROGRESS_STATE_STARTED)
        snapshot = snapshot_pb2.Snapshot()
        try:
            stream = self._peers.create_snapshot(self._snapshot, self._golden)
            with self._waiting_for(stream):
                for response in stream:
                    yield from self._shown(kind, response)
                    if response.HasField("snapshot"):
                        snapshot = response.snapshot
        except AetherlessError as error:
            failure = self._failure(error)
            yield self._told(kind, function_pb2.PROGRESS_STATE_FAILED, begun, failure.message)
            raise failure from error
        self._go_on()
        yield self._told(kind, function_pb2.PROGRESS_STATE_DONE, begun)
        return snapshot

    def _shown(
        self, kind: StepKind, response: snapshotter_service_pb2.CreateSnapshotResponse
    ) -> Responses:
        """Yield what a checkpoint told, in words of the check."""
        if response.HasField("phase"):
            progress = phase_progress(kind, response.phase)
            shown = check_report.shown(progress, self._id, self._function)
            yield messages.CheckHandlerResponse(progress=shown)
        if response.findings:
            found = check_report.findings(response.findings)
            yield messages.CheckHandlerResponse(findings=found)

    def _try(self) -> snapshot_pb2.Trial:
        """Have the snapshot restored a few times."""
        call = self._peers.begin_trial(self._clone, self._restores)
        with self._waiting_for(call):
            trial: snapshot_pb2.Trial = call.result().trial
            return trial

    @contextmanager
    def _waiting_for(self, call: TypedCall | TypedStream) -> Iterator[None]:
        """Have ``cancel`` end a call as long as the context lasts."""
        self._call = call
        if self._cancelled.is_set():
            call.cancel()
        try:
            yield
        finally:
            self._call = None

    def _step(
        self, kind: StepKind, do: Callable[[], T]
    ) -> Generator[messages.CheckHandlerResponse, None, T]:
        """Do one step, telling of it; returns its answer."""
        begun = time.monotonic_ns()
        yield self._told(kind, function_pb2.PROGRESS_STATE_STARTED)
        try:
            answer = do()
        except AetherlessError as error:
            failure = self._failure(error)
            yield self._told(kind, function_pb2.PROGRESS_STATE_FAILED, begun, failure.message)
            raise failure from error
        self._go_on()
        yield self._told(kind, function_pb2.PROGRESS_STATE_DONE, begun)
        return answer

    def _failure(self, error: AetherlessError) -> AetherlessError:
        """Return the error of a step that failed; none is left to tell when nobody waits."""
        self._go_on()
        return check_report.renamed(error, self._id, self._function)

    def _go_on(self) -> None:
        """End here when nobody waits any more."""
        if self._cancelled.is_set():
            raise CancelledError

    def _told(
        self,
        kind: StepKind,
        state: function_pb2.ProgressState.ValueType,
        begun: int = 0,
        detail: str = "",
    ) -> messages.CheckHandlerResponse:
        """Return what is told of a step."""
        progress = function_pb2.DeployProgress(step=kind.value, state=state, detail=detail)
        if begun:
            progress.duration.FromNanoseconds(time.monotonic_ns() - begun)
        return messages.CheckHandlerResponse(progress=progress)

    def _attach(self, instance: instance_pb2.Instance) -> None:
        """Give a sandbox its link."""
        name = names.bare(instance.name, names.INSTANCES)
        self._peers.attach_endpoint(name, instance.netns_path, self._workload.trigger_port)

    def _delete_golden(self) -> None:
        """Take the golden away, whose program has ended."""
        self._peers.detach_endpoint(self._golden)
        self._peers.delete_instance(self._golden)

    def _clear(self) -> None:
        """Remove what the check made; what can't be removed now is left to the reconciler."""
        until = time.monotonic() + CLEARING_S
        try:
            while not self._cleared() and time.monotonic() < until:
                time.sleep(RETRY_S)
        finally:
            self._reconciler.take_back(self._id)

    def _cleared(self) -> bool:
        """Try to remove everything."""
        try:
            self._reconciler.clear(self._id)
        except RetryLaterError as error:
            log.info("check not cleared yet", check=self._id, cause=str(error))
            return False
        return True

    @property
    def _golden(self) -> str:
        return names.golden_id(self._id, _REVISION)

    @property
    def _clone(self) -> str:
        return names.instance_id(self._id, _REVISION)

    @property
    def _snapshot(self) -> str:
        return names.snapshot_id(self._id, _REVISION)
