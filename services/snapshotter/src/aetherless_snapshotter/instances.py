# SPDX-License-Identifier: Apache-2.0
"""All instances of one orchestrator: made, adopted after a restart, driven, watched, deleted."""

from __future__ import annotations

import time
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_common.errors import AetherlessError
from aetherless_common.watch import Broadcaster
from aetherless_snapshotter import adoption, channels, commands, errors
from aetherless_snapshotter.description import Description
from aetherless_snapshotter.golden import SnapshotRun
from aetherless_snapshotter.instance import (
    CREATED,
    ENDED,
    RUNNING,
    Instance,
    last_part,
    state_name,
)
from aetherless_snapshotter.live import Live, Table, with_root
from aetherless_snapshotter.sandbox import Sandbox, delete_folder
from aetherless_snapshotter.sandbox_errors import SandboxError, SandboxGoneError
from aetherless_snapshotter.sandbox_events import Armed, Event, Woke
from aetherless_snapshotter.stale import StaleWatch
from aetherless_snapshotter.trial import TrialRun, hold_to_limit
from aetherless_snapshotter.workshop import Golden

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless_snapshotter.builder import Builder
    from aetherless_snapshotter.inspection import Found
    from aetherless_snapshotter.manifest import Manifest
    from aetherless_snapshotter.sandbox import Endpoint

log = structlog.get_logger()


@dataclass(frozen=True)
class Change:
    """One change of an instance, as watchers get it."""

    instance: instance_pb2.Instance
    wake: instance_pb2.Wake | None = None


class Instances:
    """The instances by id. One call at a time works on an instance; a second one is refused.

    Attributes:
        changes: what watchers subscribe to.
        stale: ends armed ones that can't be restored any more, once it was started.
    """

    def __init__(self, folder: Path, cgroup: str, builder: Builder) -> None:
        self.changes: Broadcaster[Change] = Broadcaster()
        self._folder = folder
        self._cgroup = cgroup
        self._builder = builder
        self._table = Table()
        self.stale = StaleWatch(self._table, builder.store, self._remove)

    # Reading

    def get(self, instance_id: str) -> Instance:
        """Return an instance.

        Raises:
            NotFound: INSTANCE_NOT_FOUND.
        """
        return self._table.find(instance_id).instance

    def all(self) -> list[Instance]:
        """Return all instances, by id."""
        return [live.instance for live in self._table.all()]

    def users_of(self, snapshot_id: str) -> list[str]:
        """Return the ids of the instances that restore a snapshot."""
        name = f"snapshots/{snapshot_id}"
        return [one.instance_id for one in self.all() if one.snapshot == name]

    # The life of an instance

    def adopt_all(self) -> None:
        """Take up the clones that live, and remove goldens and what is left of the dead."""
        if not self._folder.is_dir():
            return
        for folder in sorted(self._folder.iterdir()):
            try:
                description = Description.read(folder)
            except (OSError, ValueError) as error:
                log.warning("instance never complete", instance=folder.name, error=str(error))
                delete_folder(folder, self._cgroup)
                continue
            if description.role == instance_pb2.INSTANCE_ROLE_GOLDEN:
                log.info("removed golden of an earlier process", instance=folder.name)
                delete_folder(folder, self._cgroup)
            else:
                self._adopt(folder, description)

    def _adopt(self, folder: Path, description: Description) -> None:
        """Take up one clone, or remove what is left of it."""
        try:
            adopted = adoption.adopt(folder, description, self._on_event)
        except SandboxError as error:
            log.warning("instance did not survive", instance=folder.name, error=str(error))
            delete_folder(folder, self._cgroup)
            return
        if description.endpoint is None:
            log.info("removed clone that was never armed", instance=folder.name)
            adopted.sandbox.delete()
            return
        self._keep(Live(adopted.instance, adopted.sandbox, description.endpoint))
        adopted.follow()

    def create(
        self,
        instance_id: str,
        workload: instance_pb2.Workload,
        role: instance_pb2.InstanceRole.ValueType,
        snapshot: str,
    ) -> Instance:
        """Make a sandbox; one that exists with the same id and content is returned as it is.

        One that has ended is replaced.

        Raises:
            AetherlessError: INSTANCE_EXISTS, SANDBOX_FAILED, and what the workload is refused for.
        """
        with self._table.making_of(instance_id):
            live = self._table.get(instance_id)
            if live is not None and live.instance.state != ENDED:
                known = live.instance
                if (known.workload, known.role, known.snapshot) != (workload, role, snapshot):
                    raise errors.instance_exists(instance_id)
                return known
            if live is not None:
                self._remove(live, "replaced")
            try:
                return self._make(instance_id, workload, role, snapshot)
            except AetherlessError:
                self._builder.let_go(workload.function_id, [one.workload for one in self.all()])
                raise

    def try_restores(
        self,
        instance_id: str,
        restores: int,
        *,
        ignore_limit: bool,
        when_over: Callable[[Callable[[], None]], object] = lambda _: True,
    ) -> snapshot_pb2.Trial:
        """Restore a clone's snapshot a few times, and keep with it what that showed.

        Args:
            instance_id: the clone's id.
            restores: how many.
            ignore_limit: whether restores above their limit are no error.
            when_over: is given what to call when nobody waits any more; false when nobody does.

        Raises:
            TrialGivenUpError: nobody waits any more.
            AetherlessError: RESTORE_LATENCY_VIOLATION unless ``ignore_limit``, RESTORE_FAILED,
                MEMORY_LIMIT_EXCEEDED, SNAPSHOT_CORRUPT, SNAPSHOT_INCOMPATIBLE, SANDBOX_FAILED,
                INVALID_STATE_TRANSITION.
        """
        with self._table.working_on(instance_id) as live:
            instance, snapshot_id = live.instance, last_part(live.instance.snapshot)
            if instance.is_golden:
                raise errors.invalid_state_transition(
                    instance_id, state_name(instance.state), "TRYING"
                )
            manifest = self._builder.store.check(snapshot_id)
            run = TrialRun(instance, live.sandbox, restores, manifest.images_dir)
            if not when_over(run.give_up):
                run.give_up()
            trial = self._try(run, manifest)
            if not ignore_limit:
                hold_to_limit(instance.workload, trial)
            self._builder.store.keep_trial(snapshot_id, trial)
            return trial

    def arm(self, instance_id: str, endpoint: Endpoint) -> Instance:
        """Have the sandbox hold first packets, after the snapshot was checked.

        Raises:
            AetherlessError: SNAPSHOT_CORRUPT, SNAPSHOT_INCOMPATIBLE, INVALID_STATE_TRANSITION.
        """
        with self._table.working_on(instance_id) as live:
            instance = live.instance
            if instance.is_golden or instance.state == ENDED:
                raise errors.invalid_state_transition(
                    instance_id, state_name(instance.state), "ARMED"
                )
            manifest = self._builder.store.check(last_part(instance.snapshot))
            if instance.state != CREATED and live.endpoint == endpoint:
                return instance
            self._arm(live, endpoint, manifest.images_dir)
            return instance

    def wake(self, instance_id: str) -> Instance:
        """Restore an armed instance now; one that runs is left alone.

        Raises:
            AetherlessError: RESTORE_FAILED, RESTORE_LATENCY_VIOLATION, MEMORY_LIMIT_EXCEEDED,
                INVALID_STATE_TRANSITION, SNAPSHOT_STALE.
        """
        with self._table.working_on(instance_id) as live:
            instance = live.instance
            self.stale.check(live)
            commands.wake(instance, live.sandbox)
            return instance

    def evict(self, instance_id: str, patience: float, last_call: float = 0.0) -> Instance:
        """End the restored tree and arm again; ``commands.evict`` says when.

        Raises:
            AetherlessError: REQUEST_IN_FLIGHT, INVALID_STATE_TRANSITION.
        """
        with self._table.working_on(instance_id) as live:
            instance = live.instance
            commands.evict(instance, live.sandbox, patience, last_call)
            return instance

    def touch(self, instance_id: str) -> None:
        """Have an instance's idle time begin anew; one that does not run has none.

        Raises:
            AetherlessError: INSTANCE_NOT_FOUND, SANDBOX_FAILED.
        """
        live = self._table.find(instance_id)
        if live.instance.state == RUNNING:
            commands.touch(live.instance, live.sandbox)

    def delete(self, instance_id: str) -> None:
        """End a sandbox and all in it.

        Raises:
            NotFound: INSTANCE_NOT_FOUND.
        """
        with self._table.working_on(instance_id) as live:
            self._remove(live, "deleted")
        self._builder.store.sweep({last_part(one.snapshot) for one in self.all()})

    def snapshot(
        self, instance_id: str, snapshot_id: str, wanted: Callable[[], bool]
    ) -> Iterator[snapshot_pb2.SnapshotPhase | Found | Manifest]:
        """Start a golden's program, checkpoint it, and end it; yields phases, findings, manifest.

        A complete snapshot of that id made from the same workload is returned at once. The making
        ends early, without a manifest, when ``wanted()`` says so.

        Raises:
            AetherlessError: whatever a step fails with.
        """
        with self._table.working_on(instance_id) as live:
            done = self._builder.store.made_of(live.instance.workload, snapshot_id)
            if done is not None:
                yield done
                return
            run = SnapshotRun(snapshot_id, self._golden(live), self._builder.workshop, wanted)
            self._change(live.instance, live.instance.become_started)
            reason = f"used up for snapshots/{snapshot_id}"
            try:
                yield from run.phases()
            finally:
                self._change(live.instance, lambda: live.instance.become_ended(reason))
            if run.manifest is not None:
                yield run.manifest

    def delete_snapshot(self, snapshot_id: str) -> None:
        """Remove a snapshot that no instance restores.

        Raises:
            NotFound: SNAPSHOT_NOT_FOUND.
            Aborted: OPERATION_IN_PROGRESS, an instance uses it.
        """
        for user in self.users_of(snapshot_id):
            raise errors.snapshot_in_use(snapshot_id, user)
        self._builder.store.delete(snapshot_id)

    def release(self, function_id: str, revision: int) -> None:
        """Remove a revision's copy of the function's folder, if it is there.

        Raises:
            Aborted: OPERATION_IN_PROGRESS, an instance or a snapshot needs it.
        """
        self._builder.release(function_id, revision, [one.workload for one in self.all()])

    def close(self) -> None:
        """Let go of all sandboxes without ending them, and end all watches."""
        self.stale.stop()
        self.changes.close()
        self._table.close()

    # Helpers

    def _make(
        self,
        instance_id: str,
        workload: instance_pb2.Workload,
        role: instance_pb2.InstanceRole.ValueType,
        snapshot: str,
    ) -> Instance:
        """Make the sandbox of a new instance."""
        folder = self._folder / instance_id
        built = self._builder.build(instance_id, workload, last_part(snapshot))
        instance = Instance(
            instance_id, workload, role, snapshot, built.program.command, time.time_ns()
        )
        delete_folder(folder, self._cgroup)
        Description.of(instance).write(folder)
        if workload.ipc:
            channels.make_folder(folder)
        try:
            sandbox = Sandbox.create(built.spec, lambda event: self._on_event(instance, event))
        except SandboxError as error:
            raise errors.sandbox_failed(instance_id, f"{error.step}: {error.detail}") from error
        try:
            if snapshot:
                sandbox.attach_snapshot(self._builder.store.images(last_part(snapshot)))
        except SandboxError as error:
            sandbox.delete()
            raise errors.sandbox_failed(instance_id, f"{error.step}: {error.detail}") from error
        self._keep(Live(instance, sandbox, built=built))
        return instance

    def _keep(self, live: Live) -> None:
        """Make an instance visible."""
        live.instance.netns_path = str(live.sandbox.netns_path)
        live.instance.init_pid = live.sandbox.init_pid
        if live.instance.workload.ipc:
            live.instance.channel_folder = str(live.sandbox.folder / channels.FOLDER)
        self._table.put(live)
        self.changes.publish(Change(live.instance.message()))

    def _remove(self, live: Live, reason: str) -> None:
        """End a sandbox and forget its instance."""
        try:
            live.sandbox.delete()
        except SandboxGoneError:
            delete_folder(live.sandbox.folder, self._cgroup)
        self._table.drop(live.instance.instance_id)
        self._change(live.instance, lambda: live.instance.become_ended(reason))

    def _try(self, run: TrialRun, manifest: Manifest) -> snapshot_pb2.Trial:
        """Try restores; the sandbox of one that failed stays TRYING: it is made anew."""
        self._change(run.instance, run.instance.become_trying)
        trial = run.of_snapshot(manifest, self._builder.store)
        self._change(run.instance, run.instance.become_created)
        return trial

    def _arm(self, live: Live, endpoint: Endpoint, images_dir: str) -> None:
        """Hand the endpoint and the restore's request to the init."""
        instance = live.instance
        commands.arm(instance, live.sandbox, endpoint, images_dir)
        live.endpoint = endpoint
        replace(Description.of(instance), endpoint=endpoint).write(live.sandbox.folder)

    def _golden(self, live: Live) -> Golden:
        """Return what making a snapshot needs of a golden that was not started yet."""
        instance = live.instance
        if not instance.is_golden or instance.state != CREATED or live.built is None:
            raise errors.invalid_state_transition(
                instance.instance_id, state_name(instance.state), "STARTED"
            )
        return Golden(
            live.sandbox,
            instance.workload,
            live.built.program,
            live.built.spec.all_trees(),
            instance.exited,
            lambda: instance.root_exit,
        )

    def _on_event(self, instance: Instance, event: Event) -> None:
        """Follow a report of a sandbox and tell the watchers."""
        with instance.changed:
            wake = instance.observe(event, adoption.clock_offset(), time.time_ns())
            instance.changed.notify_all()
            self.changes.publish(Change(with_root(instance), wake))
        if isinstance(event, Armed | Woke):
            self.stale.look(instance.instance_id)

    def _change(self, instance: Instance, transition: Callable[[], None]) -> None:
        """Make a transition of our own and tell the watchers."""
        with instance.changed:
            transition()
            instance.changed.notify_all()
            self.changes.publish(Change(instance.message()))
