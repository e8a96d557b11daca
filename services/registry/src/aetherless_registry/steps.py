# SPDX-License-Identifier: Apache-2.0
"""How each planned step is done: which call it is, and what to make of its refusal."""

from __future__ import annotations

import threading
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_common.errors import AetherlessError, NotFound
from aetherless_registry import names, resources, revisions, trials
from aetherless_registry.desired import Step, StepKind
from aetherless_registry.events import WARNING

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.channels import TypedStream
    from aetherless_registry.catalog import Catalog
    from aetherless_registry.courses import Courses
    from aetherless_registry.desired import ChannelRules, ObservedChannel
    from aetherless_registry.events import EventLog
    from aetherless_registry.peers import Peers, World
    from aetherless_registry.store import FunctionRecord

# Short: while it lasts nothing else is done for the function. It is asked again and again.
DRAIN_PATIENCE_S = 0.01
# How long requests that were taken by then may go on when connections in use are ended.
LAST_CALL_S = 1.0
_GONE = frozenset(
    {"CHANNEL_NOT_FOUND", "INSTANCE_NOT_FOUND", "ROUTE_NOT_FOUND", "SNAPSHOT_NOT_FOUND"}
)
_PHASES = {
    snapshot_pb2.PHASE_STATE_STARTED: function_pb2.PROGRESS_STATE_STARTED,
    snapshot_pb2.PHASE_STATE_DONE: function_pb2.PROGRESS_STATE_DONE,
    snapshot_pb2.PHASE_STATE_FAILED: function_pb2.PROGRESS_STATE_FAILED,
}


class InterruptedStepError(Exception):
    """The function was declared anew while a long step went on; what is to be done changed."""


@dataclass(frozen=True, slots=True)
class _Job:
    """A step with what it is done with."""

    function_id: str
    step: Step
    # The declaration of the step's revision; empty for a function that nobody declares.
    spec: function_pb2.FunctionSpec
    world: World

    @property
    def golden(self) -> str:
        """The id of the revision's golden, and of its endpoint."""
        return names.golden_id(self.function_id, self.step.revision)

    @property
    def instance(self) -> str:
        """The id of the revision's instance, and of its endpoint."""
        return names.instance_id(self.function_id, self.step.revision)

    @property
    def snapshot(self) -> str:
        """The id of the revision's snapshot."""
        return names.snapshot_id(self.function_id, self.step.revision)

    @property
    def workload(self) -> instance_pb2.Workload:
        """What the revision runs."""
        return resources.workload(self.spec, self.step.revision)

    @property
    def rules(self) -> ChannelRules:
        """What holds for the revision's channel, which it has."""
        rules = resources.channel_rules(self.spec)
        if rules is None:
            raise AssertionError(f"{self.function_id} has no channel")
        return rules

    @property
    def channel(self) -> ObservedChannel | None:
        """The function's channel as observed."""
        return self.world.observed(self.function_id).channel


class StepRunner:
    """Does steps. Safe for use by many threads.

    Args:
        peers: the services to ask.
        catalog: told of the phases of a snapshot.
        events: where warnings go.
        courses: each step is recorded in its function's.
    """

    def __init__(self, peers: Peers, catalog: Catalog, events: EventLog, courses: Courses) -> None:
        self._peers = peers
        self._catalog = catalog
        self._events = events
        self._courses = courses
        self._lock = threading.Lock()
        self._streams: dict[str, TypedStream] = {}
        self._doers: dict[StepKind, Callable[[_Job], None]] = {
            StepKind.CREATE_GOLDEN: self._create_golden,
            StepKind.ATTACH_GOLDEN: self._attach_golden,
            StepKind.CREATE_SNAPSHOT: self._create_snapshot,
            StepKind.DELETE_GOLDEN: self._delete_golden,
            StepKind.CREATE_INSTANCE: self._create_instance,
            StepKind.ATTACH_INSTANCE: self._attach_instance,
            StepKind.TRY_SNAPSHOT: self._try_snapshot,
            StepKind.ARM_INSTANCE: self._arm_instance,
            StepKind.SET_ROUTE: self._set_route,
            StepKind.CREATE_CHANNEL: self._create_channel,
            StepKind.ADMIT_GOLDEN: lambda job: self._admit(job, job.golden),
            StepKind.ADMIT_INSTANCE: lambda job: self._admit(job, job.instance),
            StepKind.SET_CHANNEL: self._set_channel,
            StepKind.RESERVE_PORT: self._reserve_port,
            StepKind.DELETE_ROUTE: self._delete_route,
            StepKind.DRAIN_INSTANCE: self._drain_instance,
            StepKind.DETACH_INSTANCE: self._detach_instance,
            StepKind.DELETE_INSTANCE: self._delete_instance,
            StepKind.DELETE_SNAPSHOT: self._delete_snapshot,
            StepKind.DELETE_ROOT: self._delete_root,
            StepKind.DISMISS_INSTANCE: self._dismiss_instance,
            StepKind.DELETE_CHANNEL: self._delete_channel,
        }

    def run(
        self, function_id: str, step: Step, record: FunctionRecord | None, world: World
    ) -> None:
        """Do a step; deleting what is gone already is fine.

        Args:
            function_id: the function.
            step: the step, as planned from ``world``.
            record: the function as declared; None for one that nobody declares.
            world: what was observed.

        Raises:
            AetherlessError: as the service answered.
            InterruptedStepError: after ``interrupt``.
        """
        spec = revisions.spec(record, step.revision) if record else function_pb2.FunctionSpec()
        with self._courses.step(record, function_id, step):
            self._doers[step.kind](_Job(function_id, step, spec, world))

    def interrupt(self, function_id: str) -> None:
        """End a long step of a function."""
        with self._lock:
            stream = self._streams.get(function_id)
        if stream is not None:
            stream.cancel()

    def interrupt_all(self) -> None:
        """End all long steps."""
        with self._lock:
            streams = list(self._streams.values())
        for stream in streams:
            stream.cancel()

    def _create_golden(self, job: _Job) -> None:
        self._peers.create_golden(job.golden, job.workload)

    def _attach_golden(self, job: _Job) -> None:
        self._attach(job, job.golden)

    def _create_snapshot(self, job: _Job) -> None:
        stream = self._peers.create_snapshot(job.snapshot, job.golden)
        with self._lock:
            self._streams[job.function_id] = stream
        try:
            complete = False
            for response in stream:
                complete = complete or response.HasField("snapshot")
                if response.HasField("phase"):
                    progress = phase_progress(job.step.kind, response.phase)
                    self._catalog.tell_progress(job.function_id, progress)
        finally:
            with self._lock:
                del self._streams[job.function_id]
        if not complete:
            raise InterruptedStepError(job.function_id)

    def _delete_golden(self, job: _Job) -> None:
        self._peers.detach_endpoint(job.golden)
        _gone_is_fine(lambda: self._peers.delete_instance(job.golden))

    def _create_instance(self, job: _Job) -> None:
        self._peers.create_clone(job.instance, job.workload, job.snapshot)

    def _attach_instance(self, job: _Job) -> None:
        self._attach(job, job.instance)

    def _try_snapshot(self, job: _Job) -> None:
        trial = self._peers.try_instance(job.instance)
        limit = job.spec.restore_timeout
        self._catalog.tell_progress(
            job.function_id, trials.progress(job.step.kind.value, trial, limit)
        )
        if trials.is_near(trial, limit):
            self._events.record(
                job.function_id,
                trials.NEAR_LIMIT,
                trials.describe(trial, limit),
                severity=WARNING,
                metadata=trials.figures(trial, limit),
                revision=job.step.revision,
            )

    def _arm_instance(self, job: _Job) -> None:
        self._peers.arm_instance(job.instance, job.world.endpoints[job.instance])

    def _set_route(self, job: _Job) -> None:
        families = resources.route_families(job.world.snapshots[job.snapshot])
        self._peers.set_route(job.step.port, job.function_id, job.instance, families)

    def _reserve_port(self, job: _Job) -> None:
        families = job.world.routes[job.step.port].families
        self._peers.set_route(job.step.port, job.function_id, "", families)

    def _delete_route(self, job: _Job) -> None:
        _gone_is_fine(lambda: self._peers.delete_route(job.step.port))

    def _drain_instance(self, job: _Job) -> None:
        last_call = LAST_CALL_S if job.step.last_call else 0
        name, channel = names.INSTANCES + job.instance, job.channel
        admitted = bool(channel and job.instance in channel.admitted)
        if admitted:
            self._peers.dismiss(job.function_id, name, DRAIN_PATIENCE_S, force=job.step.last_call)
        try:
            self._peers.evict(name, DRAIN_PATIENCE_S, last_call)
        except AetherlessError:
            if admitted:
                self._admit(job, job.instance)
            raise

    def _detach_instance(self, job: _Job) -> None:
        self._peers.detach_endpoint(job.instance)

    def _delete_instance(self, job: _Job) -> None:
        _gone_is_fine(lambda: self._peers.delete_instance(job.instance))

    def _delete_snapshot(self, job: _Job) -> None:
        _gone_is_fine(lambda: self._peers.delete_snapshot(job.snapshot))

    def _delete_root(self, job: _Job) -> None:
        self._peers.delete_root(job.function_id, job.step.revision)

    def _create_channel(self, job: _Job) -> None:
        self._peers.create_channel(job.function_id, job.rules)

    def _admit(self, job: _Job, name: str) -> None:
        self._peers.admit(job.function_id, job.world.instances[name])

    def _set_channel(self, job: _Job) -> None:
        self._peers.set_channel(job.function_id, job.instance, job.rules)

    def _dismiss_instance(self, job: _Job) -> None:
        name = names.INSTANCES + job.step.instance
        _gone_is_fine(lambda: self._peers.dismiss(job.function_id, name, 0, force=True))

    def _delete_channel(self, job: _Job) -> None:
        _gone_is_fine(lambda: self._peers.delete_channel(job.function_id))

    def _attach(self, job: _Job, name: str) -> None:
        """Give the sandbox of an instance its link."""
        netns_path = job.world.instances[name].netns_path
        self._peers.attach_endpoint(name, netns_path, job.spec.trigger_port)


def phase_progress(
    kind: StepKind, phase: snapshot_pb2.SnapshotPhase
) -> function_pb2.DeployProgress:
    """Return a snapshot's phase as the progress of the step that makes it."""
    return function_pb2.DeployProgress(
        step=kind.value,
        phase=phase.name,
        state=_PHASES.get(phase.state, function_pb2.PROGRESS_STATE_UNSPECIFIED),
        duration=phase.duration,
        detail=phase.detail,
    )


def _gone_is_fine(delete: Callable[[], None]) -> None:
    """Delete something that somebody else may have deleted already."""
    try:
        delete()
    except NotFound as error:
        if error.reason not in _GONE:
            raise
