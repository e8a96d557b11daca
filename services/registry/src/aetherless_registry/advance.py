# SPDX-License-Identifier: Apache-2.0
"""Takes the steps of one function: observe, plan one step, do it, again.

Nothing is remembered between two steps but in the store, how often something was tried, and how
long something was waited for.
"""

from __future__ import annotations

import threading
import time
from dataclasses import replace
from typing import TYPE_CHECKING

import structlog

from aetherless.registry.v1 import function_pb2
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError
from aetherless_registry import names, refusals, resources, revisions
from aetherless_registry.desired import Desired, Step, StepKind
from aetherless_registry.drains import Drains
from aetherless_registry.plan import drains, next_step
from aetherless_registry.steps import InterruptedStepError, StepRunner
from aetherless_registry.store import DEPLOYING, FAILED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from aetherless_registry.catalog import Catalog
    from aetherless_registry.courses import Courses
    from aetherless_registry.events import EventLog
    from aetherless_registry.peers import Peers, World
    from aetherless_registry.store import FunctionRecord
    from aetherless_registry.view import View

log = structlog.get_logger()
FIRST_RETRY_S = 0.1
# What may pass is tried again; after this many times in one deploy it is the deploy's failure.
ATTEMPTS = 3
_DEPLOY_STEPS = frozenset(
    {
        StepKind.CREATE_GOLDEN,
        StepKind.ATTACH_GOLDEN,
        StepKind.CREATE_SNAPSHOT,
        StepKind.DELETE_GOLDEN,
        StepKind.CREATE_INSTANCE,
        StepKind.ATTACH_INSTANCE,
        StepKind.TRY_SNAPSHOT,
        StepKind.ARM_INSTANCE,
        StepKind.SET_ROUTE,
        StepKind.CREATE_CHANNEL,
        StepKind.ADMIT_GOLDEN,
        StepKind.ADMIT_INSTANCE,
        StepKind.SET_CHANNEL,
    }
)


# Planned only when the target is all that it shall be.
_SETTLED = frozenset({StepKind.MARK_SERVING, StepKind.DRAIN_INSTANCE})


class RetryLaterError(Exception):
    """What is to be done can't be done now; ``delay`` in seconds, None for a growing one."""

    def __init__(self, cause: str, delay: float | None = None) -> None:
        super().__init__(cause)
        self.delay = delay


class Advancer:
    """Brings functions to what is desired. Each function is worked on by one thread at a time.

    Args:
        catalog: what is desired.
        peers: the services.
        view: shown the addresses that were observed.
        events: told of snapshots that are made anew, and of restores near their limit.
        courses: what is done for a function belongs to its.
        enqueue: has a function looked at soon.
        progressed: told that a function got on, so that its next failure is the first in a row.
    """

    def __init__(
        self,
        catalog: Catalog,
        peers: Peers,
        view: View,
        events: EventLog,
        courses: Courses,
        enqueue: Callable[[str], None],
        progressed: Callable[[str], None],
    ) -> None:
        self._catalog = catalog
        self._peers = peers
        self._view = view
        self._events = events
        self._courses = courses
        self._enqueue = enqueue
        self._progressed = progressed
        self._runner = StepRunner(peers, catalog, events, courses)
        self._stopping = threading.Event()
        # Of a whole deploy, the failures that might have passed.
        self._faults: dict[str, int] = {}
        # Snapshots, by function and revision, that are to be made anew; and those that were and
        # have not served since: a second refusal is the deploy's failure.
        self._spoiled: set[tuple[str, int]] = set()
        self._remade: set[tuple[str, int]] = set()
        self._drains = Drains()

    def stop(self) -> None:
        """Take no more steps; those under way are done by whoever comes next."""
        self._stopping.set()
        self._runner.interrupt_all()

    def interrupt(self, function_id: str) -> None:
        """End a long step of a function: what is to be done changed."""
        self._runner.interrupt(function_id)

    def observe(self, function_id: str) -> World:
        """Look at what there is: of one function, or with an empty id of all.

        Raises:
            RetryLaterError: a service does not answer.
        """
        try:
            world = self._peers.world(function_id)
        except AetherlessError as error:
            raise RetryLaterError(str(error)) from error
        self._view.put_endpoints(world.endpoints.values())
        return world

    def advance(self, function_id: str) -> None:
        """Take steps until the function is as it shall be.

        Raises:
            RetryLaterError: something has to come first.
        """
        while not self._stopping.is_set():
            record = self._catalog.find(function_id)
            world = self.observe(function_id)
            if record != self._catalog.find(function_id):
                continue
            desired = self._desired(record) if record else _ghost(function_id)
            observed = world.observed(function_id)
            if world.channels is None and record and _has_channel(record):
                raise RetryLaterError("the ipc service does not answer")
            step = next_step(desired, observed)
            with tracing.use(self._courses.of(function_id)):
                if record and (step is None or step.kind in _SETTLED):
                    self._settle(record)
                if step is None:
                    self._faults.pop(function_id, None)
                    self._remade.discard((function_id, desired.target))
                    return
                if step.kind is StepKind.FORGET:
                    self._catalog.forget(function_id)
                    return
                if record and step.kind in _SETTLED:
                    waits = self._drain(record, drains(desired, observed), world)
                    if step.kind is StepKind.DRAIN_INSTANCE and waits:
                        raise RetryLaterError(waits, FIRST_RETRY_S)
                else:
                    self._take(function_id, step, record, world, desired)

    def remove_stranger(self, function_id: str) -> None:
        """Remove all that is there of a function that was not stored.

        Raises:
            RetryLaterError: a service does not answer, or refuses.
        """
        log.warning("stranger", function=function_id)
        self.clear(function_id)

    def clear(self, function_id: str) -> None:
        """Remove all that is there of a function that nobody declares.

        Raises:
            RetryLaterError: a service does not answer, or refuses.
        """
        while not self._stopping.is_set():
            world = self.observe(function_id)
            step = next_step(_ghost(function_id), world.observed(function_id))
            if step is None or step.kind is StepKind.FORGET:
                return
            self._remove(function_id, step, None, world)

    def _settle(self, record: FunctionRecord) -> None:
        """Note that a function is as it is declared."""
        self._progressed(record.function_id)
        self._catalog.confirm(record.function_id)
        if record.deploy_state == DEPLOYING:
            self._catalog.complete_deploy(record.function_id, record.revision)

    def _take(
        self,
        function_id: str,
        step: Step,
        record: FunctionRecord | None,
        world: World,
        desired: Desired,
    ) -> None:
        """Do one step of a function."""
        if step.kind is StepKind.AWAIT_PORT:
            self._enqueue(world.routes[step.port].function_id)
            raise RetryLaterError(f"port {step.port} is not free yet", FIRST_RETRY_S)
        if record and step.revision == desired.target and step.kind in _DEPLOY_STEPS:
            self._deploy(function_id, step, record, world, desired)
        else:
            self._remove(function_id, step, record, world)

    def _deploy(
        self,
        function_id: str,
        step: Step,
        record: FunctionRecord,
        world: World,
        desired: Desired,
    ) -> None:
        """Do one step forward; its failure is the deploy's."""
        if not desired.failed:
            self._catalog.enter_step(function_id, record.revision, step.kind.value)
        begun = time.monotonic()
        self._tell(function_id, step, function_pb2.PROGRESS_STATE_STARTED)
        try:
            self._runner.run(function_id, step, record, world)
        except InterruptedStepError:
            log.info("interrupted", function=function_id, step=step.kind.value)
            return
        except AetherlessError as error:
            self._retry_if_passing(function_id, error)
            self._tell(function_id, step, function_pb2.PROGRESS_STATE_FAILED, begun, error.message)
            self._fail(function_id, step, record, desired, error)
            return
        self._progressed(function_id)
        self._tell(function_id, step, function_pb2.PROGRESS_STATE_DONE, begun)
        log.info("stepped", function=function_id, step=step.kind.value, revision=step.revision)

    def _fail(
        self,
        function_id: str,
        step: Step,
        record: FunctionRecord,
        desired: Desired,
        error: AetherlessError,
    ) -> None:
        """Note a failed deploy, or have a snapshot made anew that this host can't use any more."""
        key = (function_id, step.revision)
        log.warning("deploy failed", function=function_id, step=step.kind.value, error=str(error))
        if key not in self._remade and refusals.is_spoiled(desired, error):
            self._spoiled.add(key)
            self._tell_remaking(function_id, step.revision, error)
            return
        self._progressed(function_id)
        self._catalog.fail_deploy(
            function_id, record.revision, step.kind.value, error, lost=desired.repairing
        )

    def _tell_remaking(self, function_id: str, revision: int, error: AetherlessError) -> None:
        """Record that a snapshot is made anew, and why."""
        self._events.record(
            function_id,
            "SNAPSHOT_REMADE",
            f"the snapshot of revision {revision} is made anew: {error.message}",
            metadata={**error.metadata, "errorReason": error.reason},
            revision=revision,
        )

    def _remove(
        self, function_id: str, step: Step, record: FunctionRecord | None, world: World
    ) -> None:
        """Do one step of undoing; it is tried until it succeeds."""
        try:
            self._runner.run(function_id, step, record, world)
        except AetherlessError as error:
            failed = record and record.deleting and not refusals.passes(error)
            if record and failed:
                self._catalog.fail_deploy(
                    function_id, record.revision, step.kind.value, error, lost=False
                )
            raise RetryLaterError(f"{step.kind.value}: {error}") from error
        self._progressed(function_id)
        if step.kind is StepKind.DELETE_SNAPSHOT and (function_id, step.revision) in self._spoiled:
            self._spoiled.discard((function_id, step.revision))
            self._remade.add((function_id, step.revision))
        if step.kind is StepKind.DELETE_INSTANCE:
            self._drains.forget(names.instance_id(function_id, step.revision))
        log.info("undone", function=function_id, step=step.kind.value, revision=step.revision)

    def _drain(self, record: FunctionRecord, steps: Iterable[Step], world: World) -> str:
        """Try to drain each replaced instance once; return what one is waited for, if any is."""
        refused = [self._drain_one(record, step, world) for step in steps]
        return next((cause for cause in refused if cause), "")

    def _drain_one(self, record: FunctionRecord, step: Step, world: World) -> str:
        """Try to drain an instance; it is waited for as long as a request may take.

        After that connections which are still in use are ended as gently as can be.
        """
        name = names.instance_id(record.function_id, step.revision)
        timeout = revisions.spec(record, step.revision).timeout.ToSeconds()
        overdue = self._drains.overdue(name, timeout + 1)
        try:
            self._runner.run(record.function_id, replace(step, last_call=overdue), record, world)
        except AetherlessError as error:
            if not overdue:
                return str(error) or error.reason
            log.warning("not drained", instance=name, error=str(error))
            self._drains.give_up(name)
        return ""

    def _retry_if_passing(self, function_id: str, error: AetherlessError) -> None:
        """Leave for later what a service that comes back, or that is done, will answer."""
        if refusals.passes(error):
            raise RetryLaterError(str(error)) from error
        attempts = self._faults[function_id] = self._faults.get(function_id, 0) + 1
        if refusals.may_pass(error) and attempts < ATTEMPTS:
            raise RetryLaterError(str(error)) from error
        del self._faults[function_id]

    def _desired(self, record: FunctionRecord) -> Desired:
        """Return what shall be of a declared function."""
        failed = record.deploy_state == FAILED
        target = record.serving_revision if failed else record.revision
        serving, declared = (
            resources.decode_spec(record.serving_spec),
            resources.decode_spec(record.spec),
        )
        self._drains.forget(names.instance_id(record.function_id, target))
        return Desired(
            function=record.function_id,
            revision=record.revision,
            port=declared.trigger_port,
            serving_revision=record.serving_revision,
            serving_port=serving.trigger_port,
            failed=failed,
            kept=frozenset(each.revision for each in revisions.kept(record)),
            deleting=record.deleting,
            spoiled=(record.function_id, target) in self._spoiled,
            impatient=self._drains.given_up,
            channel=resources.channel_rules(serving if failed else declared),
        )

    def _tell(
        self,
        function_id: str,
        step: Step,
        state: function_pb2.ProgressState.ValueType,
        begun: float | None = None,
        detail: str = "",
    ) -> None:
        """Tell watchers where a step stands."""
        progress = function_pb2.DeployProgress(step=step.kind.value, state=state, detail=detail)
        if begun is not None:
            progress.duration.FromMicroseconds(round((time.monotonic() - begun) * 1e6))
        self._catalog.tell_progress(function_id, progress)


def _ghost(function_id: str) -> Desired:
    """Return what shall be of a function that nobody declares: nothing."""
    return Desired(function=function_id, revision=0, port=0, deleting=True)


def _has_channel(record: FunctionRecord) -> bool:
    """Tell whether a function is called, or shall be, through a channel."""
    return any(resources.decode_spec(spec).ipc for spec in (record.spec, record.serving_spec))
