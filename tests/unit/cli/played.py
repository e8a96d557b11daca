# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""Services that play a script over the real contracts, for what the command line makes of it."""

from __future__ import annotations

import queue
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from google.protobuf.duration_pb2 import Duration

from aetherless.netplane.v1 import netplane_service_pb2 as netplane_pb2
from aetherless.netplane.v1 import netplane_service_pb2_grpc, route_pb2
from aetherless.registry.v1 import function_pb2, registry_service_pb2_grpc
from aetherless.registry.v1 import registry_service_pb2 as registry_pb2
from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2, snapshotter_service_pb2_grpc
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as snapshotter_pb2
from aetherless_common import status
from aetherless_common.errors import Aborted

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

# How often a stream looks whether its watcher is gone.
TURN_S = 0.1


def function(
    name: str,
    revision: int = 1,
    deploy: function_pb2.DeployState.ValueType = function_pb2.DEPLOY_STATE_DEPLOYED,
) -> function_pb2.Function:
    """Return a function as a registry tells of it."""
    return function_pb2.Function(
        name=f"functions/{name}",
        spec=function_pb2.FunctionSpec(
            function_id=name, trigger_port=8080, handler_path="/srv/app/hello.py"
        ),
        state=function_pb2.FUNCTION_STATE_WARM_SNAPSHOT,
        revision=revision,
        serving_revision=revision,
        deploy_state=deploy,
        etag=str(revision),
        instances=[function_pb2.InstanceStatus(instance=f"instances/{name}-r1-0", address="a1")],
    )


class Registry(registry_service_pb2_grpc.RegistryServiceServicer):
    """Answers ApplyConfig with DEPLOYING, then streams what the test puts into ``script``."""

    def __init__(self, *functions: function_pb2.Function) -> None:
        self.functions = list(functions)
        self.applied: list[registry_pb2.ApplyConfigRequest] = []
        self.rollbacks: list[registry_pb2.RollbackFunctionRequest] = []
        # The plans to answer with, and how many declarations are refused as changed meanwhile.
        self.plans: list[list[registry_pb2.FunctionPlan]] = []
        self.pipeline_plan: list[registry_pb2.PipelinePlan] = []
        self.mismatches = 0
        self.script: queue.SimpleQueue[registry_pb2.FunctionEvent | None] = queue.SimpleQueue()

    def register(self, server: grpc.Server) -> None:
        """Add it to a server."""
        registry_service_pb2_grpc.add_RegistryServiceServicer_to_server(self, server)

    def ApplyConfig(self, request: Any, context: Any) -> Any:
        """Plan an update of each function, or remember the declaration."""
        if request.validate_only:
            return registry_pb2.ApplyConfigResponse(
                plan=self._plan(request), pipeline_plan=self.pipeline_plan
            )
        self.applied.append(request)
        if self.mismatches:
            self.mismatches -= 1
            status.abort(context, Aborted("ETAG_MISMATCH", "it changed"), "registry.aetherless")
        state = function_pb2.DEPLOY_STATE_DEPLOYING
        told = [function(spec.function_id, 2, state) for spec in request.functions]
        return registry_pb2.ApplyConfigResponse(functions=told, revision=5)

    def _plan(self, request: Any) -> list[registry_pb2.FunctionPlan]:
        """Return the next plan of the script; without one all is new."""
        action = registry_pb2.PLAN_ACTION_CREATE
        ids = [spec.function_id for spec in request.functions]
        new = [registry_pb2.FunctionPlan(function_id=each, action=action) for each in ids]
        return self.plans.pop(0) if self.plans else new

    def RollbackFunction(self, request: Any, context: Any) -> Any:
        """Remember the rollback; the function is on its way to revision 1, at etag 9."""
        self.rollbacks.append(request)
        state = function_pb2.DEPLOY_STATE_DEPLOYING
        told = function(request.name.removeprefix("functions/"), 1, state)
        told.etag = "9"
        return registry_pb2.RollbackFunctionResponse(function=told)

    def WatchFunctions(self, request: Any, context: Any) -> Iterator[Any]:
        """Stream the present state, then the script until its None or the watcher goes."""
        yield registry_pb2.WatchFunctionsResponse(revision=4)
        while context.is_active():
            with suppress(queue.Empty):
                event = self.script.get(timeout=TURN_S)
                if event is None:
                    return
                yield registry_pb2.WatchFunctionsResponse(revision=6, events=[event])

    def ListFunctions(self, request: Any, context: Any) -> Any:
        """Hand out one function per page."""
        at = int(request.page_token or "0")
        token = str(at + 1) if at + 1 < len(self.functions) else ""
        page = self.functions[at : at + 1]
        return registry_pb2.ListFunctionsResponse(functions=page, next_page_token=token)

    def GetFunction(self, request: Any, context: Any) -> Any:
        """Return the first function."""
        return registry_pb2.GetFunctionResponse(function=self.functions[0])


class Snapshotter(snapshotter_service_pb2_grpc.SnapshotterServiceServicer):
    """Knows one running clone and its snapshot."""

    def __init__(self, root_pid: int) -> None:
        self.root_pid = root_pid

    def register(self, server: grpc.Server) -> None:
        """Add it to a server."""
        snapshotter_service_pb2_grpc.add_SnapshotterServiceServicer_to_server(self, server)

    def ListInstances(self, request: Any, context: Any) -> Any:
        """Return the clone."""
        clone = instance_pb2.Instance(
            name=f"instances/{request.function_id}-r1-0",
            role=instance_pb2.INSTANCE_ROLE_CLONE,
            state=instance_pb2.INSTANCE_STATE_RUNNING,
            snapshot="snapshots/a-r1",
            root_pid=self.root_pid,
            wakes=7,
            failed_wakes=1,
            unique_memory_bytes=3 << 20,
            shared_memory_bytes=5 << 20,
            last_wake=instance_pb2.Wake(
                sequence=8, client="127.0.0.1:555", restore_duration=Duration(nanos=6_700_000)
            ),
            restore_stats=instance_pb2.RestoreStats(
                count=7,
                restore_p50=Duration(nanos=6_700_000),
                restore_p99=Duration(nanos=9_900_000),
            ),
        )
        return snapshotter_pb2.ListInstancesResponse(instances=[clone])

    def GetSnapshot(self, request: Any, context: Any) -> Any:
        """Return the snapshot."""
        snapshot = snapshot_pb2.Snapshot(name=request.name, criu_version="4.2.1")
        snapshot.shared_bytes, snapshot.eager_bytes = 9 << 20, 1 << 20
        snapshot.trial.page_choice = snapshot_pb2.PAGE_CHOICE_SHARED
        snapshot.trial.written_bytes = 4 << 20
        snapshot.trial.shared_answer.FromMicroseconds(13_500)
        snapshot.trial.eager_answer.FromMicroseconds(13_300)
        snapshot.trial.restores.add()
        snapshot.trial.median.FromMicroseconds(7100)
        snapshot.trial.maximum.FromMicroseconds(9000)
        snapshot.trial.first_answer.FromMicroseconds(12_300)
        snapshot.trial.suggested_timeout.FromMilliseconds(15)
        return snapshotter_pb2.GetSnapshotResponse(snapshot=snapshot)

    def TailLogs(self, request: Any, context: Any) -> Iterator[Any]:
        """Return raw bytes."""
        yield snapshotter_pb2.TailLogsResponse(data=b"one\n\xff")
        yield snapshotter_pb2.TailLogsResponse(data=f"{request.lines}\n".encode())


class Netplane(netplane_service_pb2_grpc.NetplaneServiceServicer):
    """Counts for one route."""

    def register(self, server: grpc.Server) -> None:
        """Add it to a server."""
        netplane_service_pb2_grpc.add_NetplaneServiceServicer_to_server(self, server)

    def GetRouteStats(self, request: Any, context: Any) -> Any:
        """Return counters."""
        stats = route_pb2.RouteStats(
            route=request.name, requests=1 << 33, first_byte_p50=Duration(nanos=7_400_000)
        )
        return netplane_pb2.GetRouteStatsResponse(stats=stats)
