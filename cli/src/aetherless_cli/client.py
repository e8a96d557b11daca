# SPDX-License-Identifier: Apache-2.0
"""The services as a command sees them. Only commands that talk to services import this (gRPC)."""

from __future__ import annotations

from contextlib import contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Any

from aetherless_cli.interruption import held_back
from aetherless_common.channels import connect
from aetherless_common.errors import peer_unreachable
from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless.ipc.v1.pipeline_pb2 import Pipeline
    from aetherless.netplane.v1.netplane_service_pb2_grpc import NetplaneServiceStub
    from aetherless.registry.v1.function_pb2 import Function
    from aetherless.registry.v1.registry_service_pb2_grpc import RegistryServiceStub
    from aetherless.snapshotter.v1.instance_pb2 import Instance
    from aetherless.snapshotter.v1.snapshotter_service_pb2_grpc import SnapshotterServiceStub

PAGE = 1000


class Mesh:
    """Channels to the services of one orchestrator, each made at its first use."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self._channels: list[grpc.Channel] = []

    @cached_property
    def registry(self) -> RegistryServiceStub:
        """The registry."""
        from aetherless.registry.v1 import registry_service_pb2_grpc as stubs

        return stubs.RegistryServiceStub(self._connect("registry"))

    @cached_property
    def snapshotter(self) -> SnapshotterServiceStub:
        """The snapshotter."""
        from aetherless.snapshotter.v1 import (
            snapshotter_service_pb2_grpc as stubs,
        )

        return stubs.SnapshotterServiceStub(self._connect("snapshotter"))

    @cached_property
    def netplane(self) -> NetplaneServiceStub:
        """The netplane."""
        from aetherless.netplane.v1 import netplane_service_pb2_grpc as stubs

        return stubs.NetplaneServiceStub(self._connect("netplane"))

    @cached_property
    def ipc(self) -> IpcServiceStub:
        """The ipc service."""
        from aetherless.ipc.v1 import ipc_service_pb2_grpc as stubs

        return stubs.IpcServiceStub(self._connect("ipc"))

    def function(self, function_id: str) -> Function:
        """Return one function as the registry has it."""
        from aetherless.registry.v1 import registry_service_pb2 as messages

        request = messages.GetFunctionRequest(name=function_name(function_id))
        return self.registry.GetFunction(request).function

    def functions(self) -> list[Function]:
        """Return all functions, by name."""
        from aetherless.registry.v1 import registry_service_pb2 as messages

        request = messages.ListFunctionsRequest(page_size=PAGE)
        return list(_pages(self.registry.ListFunctions, request, "functions"))

    def instances(self, function_id: str) -> list[Instance]:
        """Return the instances of one function, by name."""
        from aetherless.snapshotter.v1 import snapshotter_service_pb2 as messages

        request = messages.ListInstancesRequest(page_size=PAGE, function_id=function_id)
        return list(_pages(self.snapshotter.ListInstances, request, "instances"))

    def pipeline(self, pipeline_id: str) -> Pipeline:
        """Return one pipeline as the ipc service has it, with its counters."""
        from aetherless.ipc.v1 import ipc_service_pb2 as messages

        request = messages.GetPipelineRequest(name=pipeline_name(pipeline_id))
        return self.ipc.GetPipeline(request).pipeline

    def pipelines(self) -> list[Pipeline]:
        """Return all pipelines, by name."""
        from aetherless.ipc.v1 import ipc_service_pb2 as messages

        request = messages.ListPipelinesRequest(page_size=PAGE)
        return list(_pages(self.ipc.ListPipelines, request, "pipelines"))

    def close(self) -> None:
        """Close every channel."""
        for channel in self._channels:
            channel.close()

    def _connect(self, service: str) -> grpc.Channel:
        """Return a channel; say in plain words when there is nothing to connect to."""
        if not self.settings.socket_path(service).exists():
            cause = f"it has no socket in {self.settings.runtime_dir}"
            raise peer_unreachable(service, cause)
        channel = connect(self.settings, service)
        self._channels.append(channel)
        return channel


@contextmanager
def mesh(settings: Settings | None = None) -> Iterator[Mesh]:
    """Give the services of the orchestrator that the environment names."""
    services = Mesh(settings or Settings.load())
    try:
        yield services
    finally:
        with held_back():
            services.close()


def function_name(function_id: str) -> str:
    """Return the resource name of a function."""
    return f"functions/{function_id}"


def pipeline_name(pipeline_id: str) -> str:
    """Return the resource name of a pipeline."""
    return f"pipelines/{pipeline_id}"


def _pages(call: Any, request: Any, field: str) -> Iterator[Any]:
    while True:
        answer = call(request)
        yield from getattr(answer, field)
        if not answer.next_page_token:
            return
        request.page_token = answer.next_page_token
