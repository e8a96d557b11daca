# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002  # RPCs are named by the contract, and gRPC gives each a context
"""The gRPC face of the snapshotter: decode, one call of the domain, encode."""

from __future__ import annotations

import re
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless.snapshotter.v1 import snapshotter_service_pb2_grpc as pb_grpc
from aetherless_common.pagination import paginate
from aetherless_snapshotter import errors, trial, workload
from aetherless_snapshotter.inspection import Found
from aetherless_snapshotter.live import with_memory
from aetherless_snapshotter.sandbox import Endpoint

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from aetherless_snapshotter.hostcheck import HostChecks
    from aetherless_snapshotter.instances import Instances
    from aetherless_snapshotter.logs import Logs
    from aetherless_snapshotter.roots import Roots
    from aetherless_snapshotter.store import SnapshotStore

_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}\Z")
_ROOT = re.compile(
    r"roots/(?P<function>[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99})/(?P<revision>[1-9][0-9]*)\Z"
)
_PATIENCE_SECONDS = 5.0
_LONGEST_LAST_CALL_SECONDS = 10.0
_LOG_LINES = 100


class SnapshotterServicer(pb_grpc.SnapshotterServiceServicer):
    """Implements ``aetherless.snapshotter.v1.SnapshotterService``."""

    def __init__(
        self,
        instances: Instances,
        store: SnapshotStore,
        roots: Roots,
        logs: Logs,
        checks: HostChecks,
    ) -> None:
        self._instances = instances
        self._store = store
        self._roots = roots
        self._logs = logs
        self._checks = checks

    def CheckHost(
        self, request: pb.CheckHostRequest, context: grpc.ServicerContext
    ) -> pb.CheckHostResponse:
        """Check what a checkpoint and a restore need of this host."""
        return pb.CheckHostResponse(checks=self._checks.run(force=request.force))

    def CreateInstance(
        self, request: pb.CreateInstanceRequest, context: grpc.ServicerContext
    ) -> pb.CreateInstanceResponse:
        """Make a sandbox."""
        golden = request.role == instance_pb2.INSTANCE_ROLE_GOLDEN
        if not golden and request.role != instance_pb2.INSTANCE_ROLE_CLONE:
            raise errors.invalid_argument("role", "must be GOLDEN or CLONE")
        if golden == bool(request.snapshot):
            problem = "must be empty for a golden and set for a clone"
            raise errors.invalid_argument("snapshot", problem)
        if not golden:
            _id_of("snapshot", request.snapshot, "snapshots")
        workload.validate(request.workload)
        instance = self._instances.create(
            _id("instance_id", request.instance_id),
            request.workload,
            request.role,
            request.snapshot,
        )
        return pb.CreateInstanceResponse(instance=with_memory(instance))

    def CreateSnapshot(
        self, request: pb.CreateSnapshotRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.CreateSnapshotResponse]:
        """Start a golden, checkpoint it, and tell of each phase."""
        instance_id = _id_of("instance", request.instance, "instances")
        snapshot_id = _id("snapshot_id", request.snapshot_id)
        for item in self._instances.snapshot(instance_id, snapshot_id, context.is_active):
            if isinstance(item, snapshot_pb2.SnapshotPhase):
                yield pb.CreateSnapshotResponse(phase=item)
            elif isinstance(item, Found):
                yield pb.CreateSnapshotResponse(findings=item.findings)
            else:
                yield pb.CreateSnapshotResponse(snapshot=item.snapshot)

    def GetSnapshot(
        self, request: pb.GetSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.GetSnapshotResponse:
        """Return one snapshot."""
        manifest = self._store.manifest(_id_of("name", request.name, "snapshots"))
        return pb.GetSnapshotResponse(snapshot=manifest.snapshot)

    def ListSnapshots(
        self, request: pb.ListSnapshotsRequest, context: grpc.ServicerContext
    ) -> pb.ListSnapshotsResponse:
        """List the complete snapshots."""
        wanted = [
            manifest.snapshot
            for manifest in self._store.manifests()
            if request.function_id in ("", manifest.snapshot.function_id)
        ]
        page, token = paginate(wanted, lambda one: one.name, request.page_size, request.page_token)
        return pb.ListSnapshotsResponse(snapshots=page, next_page_token=token)

    def DeleteSnapshot(
        self, request: pb.DeleteSnapshotRequest, context: grpc.ServicerContext
    ) -> pb.DeleteSnapshotResponse:
        """Delete a snapshot that no instance uses."""
        self._instances.delete_snapshot(_id_of("name", request.name, "snapshots"))
        return pb.DeleteSnapshotResponse()

    def TryInstance(
        self, request: pb.TryInstanceRequest, context: grpc.ServicerContext
    ) -> pb.TryInstanceResponse:
        """Restore the snapshot of a clone that is not armed yet a few times."""
        if not 0 <= request.restores <= trial.MOST_RESTORES:
            raise errors.invalid_argument("restores", f"must be 0 to {trial.MOST_RESTORES}")
        try:
            measured = self._instances.try_restores(
                _id_of("name", request.name, "instances"),
                request.restores or trial.RESTORES,
                ignore_limit=request.ignore_limit,
                when_over=context.add_callback,
            )
        except trial.TrialGivenUpError:
            return pb.TryInstanceResponse()  # to nobody
        return pb.TryInstanceResponse(trial=measured)

    def ListRoots(
        self, request: pb.ListRootsRequest, context: grpc.ServicerContext
    ) -> pb.ListRootsResponse:
        """List the copies of functions' folders."""
        wanted = [
            pb.Root(name=f"roots/{owner}/{revision}", function_id=owner, revision=revision)
            for owner, revision in self._roots.all()
            if request.function_id in ("", owner)
        ]
        page, token = paginate(wanted, lambda one: one.name, request.page_size, request.page_token)
        return pb.ListRootsResponse(roots=page, next_page_token=token)

    def DeleteRoot(
        self, request: pb.DeleteRootRequest, context: grpc.ServicerContext
    ) -> pb.DeleteRootResponse:
        """Delete a copy that nothing needs."""
        self._instances.release(*_root_of(request.name))
        return pb.DeleteRootResponse()

    def ArmInstance(
        self, request: pb.ArmInstanceRequest, context: grpc.ServicerContext
    ) -> pb.ArmInstanceResponse:
        """Hand a sandbox its endpoint and have it hold first packets."""
        if not request.host_link:
            raise errors.invalid_argument("host_link", "must be set")
        endpoint = Endpoint(
            host_link=request.host_link,
            state_map=Path(request.state_map_path) if request.state_map_path else None,
            slot=request.state_map_slot,
            inner_ipv4=request.inner_ipv4,
            inner_ipv6=request.inner_ipv6,
        )
        instance = self._instances.arm(_id_of("name", request.name, "instances"), endpoint)
        return pb.ArmInstanceResponse(instance=with_memory(instance))

    def WakeInstance(
        self, request: pb.WakeInstanceRequest, context: grpc.ServicerContext
    ) -> pb.WakeInstanceResponse:
        """Restore an armed instance without a packet."""
        instance = self._instances.wake(_id_of("name", request.name, "instances"))
        return pb.WakeInstanceResponse(instance=with_memory(instance))

    def EvictInstance(
        self, request: pb.EvictInstanceRequest, context: grpc.ServicerContext
    ) -> pb.EvictInstanceResponse:
        """End the tree of a running instance and arm it again."""
        patience = request.patience.ToNanoseconds() / 1e9 or _PATIENCE_SECONDS
        last_call = request.last_call.ToNanoseconds() / 1e9
        if patience < 0:
            raise errors.invalid_argument("patience", "must not be negative")
        if not 0 <= last_call <= _LONGEST_LAST_CALL_SECONDS:
            problem = f"must be 0 to {_LONGEST_LAST_CALL_SECONDS:.0f} s"
            raise errors.invalid_argument("last_call", problem)
        instance_id = _id_of("name", request.name, "instances")
        instance = self._instances.evict(instance_id, patience, last_call)
        return pb.EvictInstanceResponse(instance=with_memory(instance))

    def TouchInstance(
        self, request: pb.TouchInstanceRequest, context: grpc.ServicerContext
    ) -> pb.TouchInstanceResponse:
        """Take note of activity that is no connection's."""
        self._instances.touch(_id_of("name", request.name, "instances"))
        return pb.TouchInstanceResponse()

    def DeleteInstance(
        self, request: pb.DeleteInstanceRequest, context: grpc.ServicerContext
    ) -> pb.DeleteInstanceResponse:
        """End a sandbox and all in it."""
        self._instances.delete(_id_of("name", request.name, "instances"))
        return pb.DeleteInstanceResponse()

    def ListInstances(
        self, request: pb.ListInstancesRequest, context: grpc.ServicerContext
    ) -> pb.ListInstancesResponse:
        """List the instances."""
        wanted = [
            one
            for one in self._instances.all()
            if request.function_id in ("", one.workload.function_id)
        ]
        page, token = paginate(
            wanted, lambda one: one.instance_id, request.page_size, request.page_token
        )
        messages = [with_memory(one) for one in page]
        return pb.ListInstancesResponse(instances=messages, next_page_token=token)

    def WatchInstances(
        self, request: pb.WatchInstancesRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.WatchInstancesResponse]:
        """Tell the present state, then each change and each wake."""
        wanted = request.function_id
        with self._instances.changes.subscribe() as subscription:
            context.add_callback(subscription.close)
            for instance in self._instances.all():
                if wanted in ("", instance.workload.function_id):
                    yield pb.WatchInstancesResponse(instance=with_memory(instance))
            yield pb.WatchInstancesResponse(synced=True)
            for change in subscription:
                if wanted in ("", change.instance.workload.function_id):
                    yield pb.WatchInstancesResponse(instance=change.instance, wake=change.wake)

    def TailLogs(
        self, request: pb.TailLogsRequest, context: grpc.ServicerContext
    ) -> Iterator[pb.TailLogsResponse]:
        """Stream what a function wrote."""
        lines = request.lines or _LOG_LINES
        blocks = self._logs.tail(
            _id("function_id", request.function_id),
            lines,
            follow=request.follow,
            alive=context.is_active,
        )
        for block in blocks:
            yield pb.TailLogsResponse(data=block)


def _id(field: str, value: str) -> str:
    """Return an id that may become part of a path.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    if not _ID.match(value):
        raise errors.invalid_argument(field, "must be 1 to 100 characters of a-z A-Z 0-9 _ - .")
    return value


def _root_of(name: str) -> tuple[str, int]:
    """Return function and revision in "roots/{function}/{revision}".

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    found = _ROOT.match(name)
    if not found:
        raise errors.invalid_argument("name", f"must be roots/ID/REVISION, is {name!r}")
    return found["function"], int(found["revision"])


def _id_of(field: str, name: str, collection: str) -> str:
    """Return the id in a resource name of ``collection``.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    prefix, _, rest = name.partition("/")
    if prefix != collection or not _ID.match(rest):
        raise errors.invalid_argument(field, f'must be "{collection}/" and an id, is {name!r}')
    return rest
