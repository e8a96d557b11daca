# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802  # RPCs are named by the contract
"""The other services over a fake host: the rules of their contracts, over real sockets.

What they refuse, the real services refuse.
"""

from __future__ import annotations

from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

from aetherless.snapshotter.v1 import (
    instance_pb2,
    snapshot_pb2,
    snapshotter_service_pb2,
    snapshotter_service_pb2_grpc,
)
from aetherless_common.errors import Aborted, AlreadyExists, FailedPrecondition, NotFound
from aetherless_common.pagination import paginate
from aetherless_common.server import serving
from aetherless_common.watch import Broadcaster

from .fake_host import ARMED, CLONE, CREATED, ENDED, RUNNING, STARTED, FakeHost
from .fake_ipc import FakeIpc
from .fake_netplane import FakeNetplane

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_common.settings import Settings


def _state_error(instance: instance_pb2.Instance, target: str) -> FailedPrecondition:
    """Return the error for an instance in the wrong state."""
    origin = instance_pb2.InstanceState.Name(instance.state)
    metadata = {"instance": instance.name, "from": origin, "to": target}
    return FailedPrecondition("INVALID_STATE_TRANSITION", f"{origin} to {target}", metadata)


class FakeSnapshotter(snapshotter_service_pb2_grpc.SnapshotterServiceServicer):
    """Instances and snapshots of a fake host."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host

    def register(self, server: Any) -> None:
        """See aetherless_common.server.Service."""
        snapshotter_service_pb2_grpc.add_SnapshotterServiceServicer_to_server(self, server)

    def start(self) -> None:
        """A golden that lost its service mid-way is deleted."""
        self.host.changes = Broadcaster()
        with self.host.lock:
            self.host.busy.clear()
            for name, instance in list(self.host.instances.items()):
                if instance.state == STARTED:
                    del self.host.instances[name]

    def stop(self) -> None:
        """End the watches."""
        self.host.changes.close()

    def CheckHost(self, _: Any, __: Any) -> Any:
        """Find nothing wrong."""
        return snapshotter_service_pb2.CheckHostResponse()

    def TailLogs(self, request: Any, _: Any) -> Any:
        """Have no logs."""
        raise NotFound("LOG_NOT_FOUND", "none", {"function": request.function_id})

    def GetSnapshot(self, request: Any, _: Any) -> Any:
        """Return a snapshot."""
        key = request.name.removeprefix("snapshots/")
        if key not in self.host.snapshots:
            raise NotFound("SNAPSHOT_NOT_FOUND", key, {"snapshot": key})
        return snapshotter_service_pb2.GetSnapshotResponse(snapshot=self.host.snapshots[key])

    def CreateInstance(self, request: Any, _: Any) -> Any:
        """Make a sandbox."""
        host = self.host
        host.begin("CreateInstance")
        with host.lock:
            name = request.instance_id
            instance = host.instances.get(name)
            if instance and instance.workload != request.workload:
                raise AlreadyExists("INSTANCE_EXISTS", name, {"instance": name})
            snapshot = request.snapshot.removeprefix("snapshots/")
            if request.role == CLONE and snapshot not in host.snapshots:
                raise NotFound("SNAPSHOT_NOT_FOUND", snapshot, {"snapshot": snapshot})
            if instance is None:
                instance = instance_pb2.Instance(
                    name=f"instances/{name}",
                    workload=request.workload,
                    role=request.role,
                    state=CREATED,
                    snapshot=request.snapshot,
                    netns_path=f"/netns/{next(host.counter)}",
                    init_pid=3000,
                )
                if request.workload.ipc:
                    instance.channel_folder = f"/instances/{name}/channel"
                instance.create_time.GetCurrentTime()
                host.instances[name] = instance
                host.roots.add((request.workload.function_id, request.workload.revision))
            answer = host.change(instance)
        host.after("CreateInstance")
        return snapshotter_service_pb2.CreateInstanceResponse(instance=answer)

    def CreateSnapshot(self, request: Any, context: Any) -> Iterator[Any]:
        """Start and checkpoint a golden."""
        host = self.host
        host.begin("CreateSnapshot")
        name = request.instance.removeprefix("instances/")
        with host.lock:
            golden = host.find(request.instance)
            if golden.state != CREATED or name not in host.endpoints:
                raise _state_error(golden, "STARTED")
            golden.state = STARTED
            host.busy.add(name)
            host.change(golden)
        try:
            yield from self._checkpoint(request.snapshot_id, golden, context)
        finally:
            host.busy.discard(name)

    def _checkpoint(self, snapshot_id: str, golden: Any, context: Any) -> Iterator[Any]:
        """Go through the phases of a snapshot, as long as somebody waits for it."""
        host = self.host
        if host.findings:
            yield snapshotter_service_pb2.CreateSnapshotResponse(findings=host.findings)
        if any(each.severity == snapshot_pb2.FINDING_SEVERITY_REFUSED for each in host.findings):
            function = golden.workload.function_id
            text = f"{function} can't be checkpointed"
            raise FailedPrecondition("NOT_CHECKPOINTABLE", text, {"function": function})
        if golden.workload.ipc:
            host.dismiss(golden.workload.function_id, golden.name)
        phase = snapshot_pb2.SnapshotPhase(name="dump", state=snapshot_pb2.PHASE_STATE_STARTED)
        yield snapshotter_service_pb2.CreateSnapshotResponse(phase=phase)
        while not host.holds.wait(0.01):
            if not context.is_active():
                return
        snapshot = snapshot_pb2.Snapshot(
            name=f"snapshots/{snapshot_id}",
            function_id=golden.workload.function_id,
            revision=golden.workload.revision,
            listen_families=snapshot_pb2.LISTEN_FAMILIES_IPV4,
            findings=host.findings,
            size_bytes=4096,
            resident_bytes=8192,
            processes=[snapshot_pb2.SnapshotProcess(pid=10000)],
        )
        for name in ("start", "ready", "warm-up", "dump"):
            snapshot.phases.add(name=name).duration.FromMilliseconds(20)
        with host.lock:
            host.snapshots[snapshot_id] = snapshot
        host.after("CreateSnapshot")
        phase.state = snapshot_pb2.PHASE_STATE_DONE
        phase.duration.FromMilliseconds(5)
        yield snapshotter_service_pb2.CreateSnapshotResponse(phase=phase)
        yield snapshotter_service_pb2.CreateSnapshotResponse(snapshot=snapshot)

    def ListSnapshots(self, request: Any, _: Any) -> Any:
        """List snapshots."""
        with self.host.lock:
            found = [
                each
                for each in self.host.snapshots.values()
                if request.function_id in {"", each.function_id}
            ]
        page, token = paginate(found, lambda s: s.name, request.page_size, request.page_token)
        return snapshotter_service_pb2.ListSnapshotsResponse(snapshots=page, next_page_token=token)

    def DeleteSnapshot(self, request: Any, _: Any) -> Any:
        """Delete a snapshot that no instance uses."""
        self.host.begin("DeleteSnapshot")
        with self.host.lock:
            if any(each.snapshot == request.name for each in self.host.instances.values()):
                raise Aborted("OPERATION_IN_PROGRESS", request.name, {"resource": request.name})
            key = request.name.removeprefix("snapshots/")
            if self.host.snapshots.pop(key, None) is None:
                raise NotFound("SNAPSHOT_NOT_FOUND", key, {"snapshot": key})
        self.host.after("DeleteSnapshot")
        return snapshotter_service_pb2.DeleteSnapshotResponse()

    def TryInstance(self, request: Any, context: Any) -> Any:
        """Restore the snapshot of a sandbox that has its endpoint, in as long as the host says."""
        host = self.host
        host.begin("TryInstance")
        while not host.trials.wait(0.01):
            if not context.is_active():
                host.after("TryInstance cancelled")
                return snapshotter_service_pb2.TryInstanceResponse()
        with host.lock:
            instance = host.find(request.name)
            assert request.name.removeprefix("instances/") in host.endpoints
            if instance.state != CREATED or instance.role != CLONE:
                raise _state_error(instance, "TRYING")
            trial = host.snapshots[instance.snapshot.removeprefix("snapshots/")].trial
            trial.CopyFrom(host.trial)
        host.after("TryInstance")
        return snapshotter_service_pb2.TryInstanceResponse(trial=trial)

    def ListRoots(self, request: Any, _: Any) -> Any:
        """List the copies of functions' folders."""
        with self.host.lock:
            found = [
                snapshotter_service_pb2.Root(
                    name=f"roots/{owner}/{number}", function_id=owner, revision=number
                )
                for owner, number in self.host.roots
                if request.function_id in {"", owner}
            ]
        page, token = paginate(found, lambda r: r.name, request.page_size, request.page_token)
        return snapshotter_service_pb2.ListRootsResponse(roots=page, next_page_token=token)

    def DeleteRoot(self, request: Any, _: Any) -> Any:
        """Delete a copy that nothing needs."""
        self.host.begin("DeleteRoot")
        _, owner, number = request.name.split("/")
        with self.host.lock:
            used = [each.workload for each in self.host.instances.values()]
            needed = {(each.function_id, each.revision) for each in used}
            needed |= {(each.function_id, each.revision) for each in self.host.snapshots.values()}
            if (owner, int(number)) in needed:
                raise Aborted("OPERATION_IN_PROGRESS", request.name, {"resource": request.name})
            self.host.roots.discard((owner, int(number)))
        self.host.after("DeleteRoot")
        return snapshotter_service_pb2.DeleteRootResponse()

    def ArmInstance(self, request: Any, _: Any) -> Any:
        """Arm a sandbox with the endpoint that leads to it."""
        host = self.host
        host.begin("ArmInstance")
        with host.lock:
            instance = host.find(request.name)
            endpoint = host.endpoints[request.name.removeprefix("instances/")]
            assert (request.host_link, request.state_map_slot) == (
                endpoint.host_link,
                endpoint.state_map_slot,
            )
            assert endpoint.netns_path == instance.netns_path
            if instance.state not in {CREATED, ARMED}:
                raise _state_error(instance, "ARMED")
            instance.state = ARMED
            answer = host.change(instance)
        host.after("ArmInstance")
        return snapshotter_service_pb2.ArmInstanceResponse(instance=answer)

    def WakeInstance(self, request: Any, _: Any) -> Any:
        """Restore an armed instance."""
        self.host.begin("WakeInstance")
        with self.host.lock:
            instance = self.host.find(request.name)
            if instance.state == ARMED:
                key = request.name.removeprefix("instances/")
                self.host.wake(key, instance_pb2.WAKE_CAUSE_COMMAND, 1)
            elif instance.state != RUNNING:
                raise _state_error(instance, "RUNNING")
            return snapshotter_service_pb2.WakeInstanceResponse(instance=instance)

    def TouchInstance(self, request: Any, _: Any) -> Any:
        """Note that an instance is in use; nothing here is evicted by itself."""
        self.host.begin("TouchInstance")
        with self.host.lock:
            self.host.find(request.name)
        return snapshotter_service_pb2.TouchInstanceResponse()

    def EvictInstance(self, request: Any, _: Any) -> Any:
        """Arm a running instance again."""
        self.host.begin("EvictInstance")
        with self.host.lock:
            instance = self.host.find(request.name)
            if instance.state != RUNNING:
                raise _state_error(instance, "ARMED")
            key = request.name.removeprefix("instances/")
            if key in self.host.in_use:
                if not request.HasField("last_call"):
                    raise FailedPrecondition("REQUEST_IN_FLIGHT", key, {"instance": key})
                self.host.last_calls.append(key)
            answer = self.host.evict(instance, instance_pb2.TREE_END_CAUSE_COMMAND)
        self.host.after("EvictInstance")
        return snapshotter_service_pb2.EvictInstanceResponse(instance=answer)

    def DeleteInstance(self, request: Any, _: Any) -> Any:
        """End a sandbox."""
        host = self.host
        host.begin("DeleteInstance")
        with host.lock:
            instance = host.find(request.name)
            key = request.name.removeprefix("instances/")
            if key in host.busy:
                raise Aborted("OPERATION_IN_PROGRESS", key, {"resource": key})
            del host.instances[key]
            instance.state = ENDED
            host.change(instance)
        host.after("DeleteInstance")
        return snapshotter_service_pb2.DeleteInstanceResponse()

    def ListInstances(self, request: Any, _: Any) -> Any:
        """List instances."""
        with self.host.lock:
            found = [
                each
                for each in self.host.instances.values()
                if request.function_id in {"", each.workload.function_id}
            ]
            page, token = paginate(found, lambda i: i.name, request.page_size, request.page_token)
            return snapshotter_service_pb2.ListInstancesResponse(
                instances=page, next_page_token=token
            )

    def WatchInstances(self, _: Any, context: Any) -> Iterator[Any]:
        """Stream instances."""
        response = snapshotter_service_pb2.WatchInstancesResponse
        with self.host.changes.subscribe() as changes:
            context.add_callback(changes.close)
            with self.host.lock:
                present = [response(instance=each) for each in self.host.instances.values()]
            yield from present
            yield response(synced=True)
            yield from changes


class FakeServices:
    """Serves a fake host's services; each can be taken away and brought back."""

    def __init__(self, settings: Settings, host: FakeHost) -> None:
        self.settings = settings
        self.services: dict[str, Any] = {
            "snapshotter": FakeSnapshotter(host),
            "netplane": FakeNetplane(host),
            "ipc": FakeIpc(host),  # type: ignore[abstract] # pipelines are declared elsewhere
        }
        self.stacks: dict[str, ExitStack] = {}

    def start(self, name: str) -> None:
        """Bring a service up."""
        service = self.services[name]
        service.start()
        stack = ExitStack()
        stack.enter_context(serving(self.settings, name, service))
        self.stacks[name] = stack

    def stop(self, name: str) -> None:
        """Take a service away; what it owns stays."""
        self.stacks.pop(name).close()

    def stop_all(self) -> None:
        """Take away what is up."""
        for name in list(self.stacks):
            self.stop(name)
