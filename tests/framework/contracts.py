# SPDX-License-Identifier: Apache-2.0
"""What tests ask the services over gRPC, and the reason in what they refuse."""

from __future__ import annotations

import contextlib
from typing import TYPE_CHECKING, Any

import grpc
import pytest
from grpc_health.v1 import health_pb2, health_pb2_grpc

from aetherless.ipc.v1 import ipc_service_pb2_grpc
from aetherless.netplane.v1 import netplane_service_pb2_grpc
from aetherless.registry.v1 import function_pb2, registry_service_pb2, registry_service_pb2_grpc
from aetherless.snapshotter.v1 import (
    instance_pb2,
    snapshot_pb2,
    snapshotter_service_pb2,
    snapshotter_service_pb2_grpc,
)
from aetherless_common.status import from_rpc_error

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_common.settings import Settings

RPC_TIMEOUT_S = 20.0
PROBE_TIMEOUT_S = 2.0
STUBS: dict[str, Any] = {
    "registry": registry_service_pb2_grpc.RegistryServiceStub,
    "snapshotter": snapshotter_service_pb2_grpc.SnapshotterServiceStub,
    "netplane": netplane_service_pb2_grpc.NetplaneServiceStub,
    "ipc": ipc_service_pb2_grpc.IpcServiceStub,
}


class Refusal:
    """What a refused call said; filled in when the block of ``refused`` ends."""

    reason = ""
    code = ""
    message = ""
    metadata: dict[str, str]


@contextlib.contextmanager
def refused(service: str) -> Iterator[Refusal]:
    """Expect that the block's call is refused with a typed error, and say which."""
    refusal = Refusal()
    with pytest.raises(grpc.RpcError) as raised:
        yield refusal
    error = from_rpc_error(raised.value, service, "call")
    refusal.reason, refusal.code = error.reason, error.code
    refusal.message, refusal.metadata = error.message, dict(error.metadata)


class Contracts:
    """Clients of one orchestrator's services.

    Arguments:
        settings: The orchestrator's settings; each service is at its Unix socket.
    """

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.channels: dict[str, grpc.Channel] = {}

    def channel(self, service: str) -> grpc.Channel:
        """Return the channel to a service; it reconnects fast after a restart."""
        if service not in self.channels:
            options = (
                ("grpc.initial_reconnect_backoff_ms", 50),
                ("grpc.min_reconnect_backoff_ms", 2000),
                ("grpc.max_reconnect_backoff_ms", 200),
            )
            target = f"unix:{self.settings.socket_path(service)}"
            self.channels[service] = grpc.insecure_channel(target, options)
        return self.channels[service]

    def stub(self, service: str) -> Any:
        """Return the client stub of a service."""
        return STUBS[service](self.channel(service))

    def close(self) -> None:
        """Close every channel."""
        for channel in self.channels.values():
            channel.close()
        self.channels.clear()

    def is_serving(self, service: str) -> bool:
        """Say whether a service answers that it serves."""
        stub = health_pb2_grpc.HealthStub(self.channel(service))
        try:
            answer = stub.Check(health_pb2.HealthCheckRequest(), timeout=PROBE_TIMEOUT_S)
        except grpc.RpcError:
            return False
        return bool(answer.status == health_pb2.HealthCheckResponse.SERVING)

    def function(self, function: str) -> function_pb2.Function:
        """Return a function as the registry has it."""
        request = registry_service_pb2.GetFunctionRequest(name=f"functions/{function}")
        answer = self.stub("registry").GetFunction(request, timeout=RPC_TIMEOUT_S)
        found: function_pb2.Function = answer.function
        return found

    def state(self, function: str) -> str:
        """Return a function's state without its prefix."""
        number = self.function(function).state
        name = function_pb2.FunctionState.Name(number)
        return name.removeprefix("FUNCTION_STATE_")

    def deploy_state(self, function: str) -> str:
        """Return where a function's deploy stands, without the prefix."""
        name = function_pb2.DeployState.Name(self.function(function).deploy_state)
        return name.removeprefix("DEPLOY_STATE_")

    def roll_back(self, function: str) -> int:
        """Have the revision serve again that served before; return its number, not yet reached."""
        request = registry_service_pb2.RollbackFunctionRequest(name=f"functions/{function}")
        answer = self.stub("registry").RollbackFunction(request, timeout=RPC_TIMEOUT_S)
        return int(answer.function.revision)

    def instances(self, function: str = "") -> list[instance_pb2.Instance]:
        """Return the snapshotter's instances, of one function or all."""
        request = snapshotter_service_pb2.ListInstancesRequest(function_id=function)
        answer = self.stub("snapshotter").ListInstances(request, timeout=RPC_TIMEOUT_S)
        return list(answer.instances)

    def instance(self, function: str) -> instance_pb2.Instance:
        """Return the one clone of a function."""
        clones = [
            instance
            for instance in self.instances(function)
            if instance.role == instance_pb2.INSTANCE_ROLE_CLONE
        ]
        assert len(clones) == 1, clones
        return clones[0]

    def snapshot(self, name: str) -> snapshot_pb2.Snapshot:
        """Return a snapshot by its resource name."""
        request = snapshotter_service_pb2.GetSnapshotRequest(name=name)
        answer = self.stub("snapshotter").GetSnapshot(request, timeout=RPC_TIMEOUT_S)
        found: snapshot_pb2.Snapshot = answer.snapshot
        return found

    def instance_id(self, function: str) -> str:
        """Return the id of a function's one clone."""
        return self.instance(function).name.removeprefix("instances/")

    def evict(self, function: str) -> None:
        """Evict a function; what runs of it has ended when this returns."""
        request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{function}")
        self.stub("registry").EvictFunction(request, timeout=RPC_TIMEOUT_S)

    def watch_wakes(self, function: str) -> WakeWatch:
        """Begin to watch a function's wakes; the watch stands when this returns."""
        request = registry_service_pb2.WatchFunctionsRequest(name=f"functions/{function}")
        return WakeWatch(self.stub("registry").WatchFunctions(request, timeout=60.0))

    def watch_progress(self) -> ProgressWatch:
        """Begin to watch the steps of all deploys; the watch stands when this returns."""
        request = registry_service_pb2.WatchFunctionsRequest()
        return ProgressWatch(self.stub("registry").WatchFunctions(request, timeout=60.0))


class WakeWatch:
    """A stream of a function's events, read up to its next wake.

    Arguments:
        stream: The stream of WatchFunctions; its present state is read at once.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        next(stream)

    def next(self) -> function_pb2.WakeNotice:
        """Return the next wake; RpcError DEADLINE_EXCEEDED when none comes."""
        for response in self.stream:
            for event in response.events:
                if event.type == registry_service_pb2.FUNCTION_EVENT_TYPE_WAKE:
                    notice: function_pb2.WakeNotice = event.wake
                    return notice
        raise AssertionError("the watch ended before a wake came")

    def close(self) -> None:
        """End the watch."""
        self.stream.cancel()


class ProgressWatch:
    """A stream of all functions' events, read up to a step of a deploy.

    Steps pass by in milliseconds: who asks again and again where a deploy is may never see one.

    Arguments:
        stream: The stream of WatchFunctions; its present state is read at once.
    """

    def __init__(self, stream: Any) -> None:
        self.stream = stream
        next(stream)

    def reach(self, function: str, step: str, state: str, phase: str = "") -> None:
        """Return when a step, or one of its phases, is STARTED or DONE; then the watch is over.

        Raises:
            RpcError: DEADLINE_EXCEEDED, it does not come to that.
        """
        wanted = (step, phase, function_pb2.ProgressState.Value(f"PROGRESS_STATE_{state}"))
        for response in self.stream:
            for event in response.events:
                if event.type != registry_service_pb2.FUNCTION_EVENT_TYPE_PROGRESS:
                    continue
                told = event.progress
                is_its = event.function.spec.function_id == function
                if is_its and (told.step, told.phase, told.state) == wanted:
                    self.stream.cancel()
                    return
        raise AssertionError(f"the watch ended before {function} came to {step}")
