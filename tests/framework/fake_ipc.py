# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802  # RPCs are named by the contract
"""An ipc service over a fake host: channels without rings. What it refuses, the real one does."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.ipc.v1 import channel_pb2, ipc_service_pb2, ipc_service_pb2_grpc
from aetherless_common.errors import AlreadyExists, FailedPrecondition, NotFound
from aetherless_common.pagination import paginate

if TYPE_CHECKING:
    from .fake_host import FakeHost


class FakeIpc(ipc_service_pb2_grpc.IpcServiceServicer):
    """Channels of a fake host."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host

    def register(self, server: Any) -> None:
        """See aetherless_common.server.Service."""
        ipc_service_pb2_grpc.add_IpcServiceServicer_to_server(self, server)

    def start(self) -> None:
        """Do nothing: the declarations are kept."""

    def stop(self) -> None:
        """Do nothing."""

    def CreateChannel(self, request: Any, _: Any) -> Any:
        """Make a channel."""
        host, name = self.host, request.channel_id
        host.begin("CreateChannel")
        with host.lock:
            channel = host.channels.get(name)
            if channel and channel.function_id != request.channel.function_id:
                raise AlreadyExists("CHANNEL_EXISTS", name, {"channel": name})
            if channel is None:
                channel = channel_pb2.Channel()
                channel.CopyFrom(request.channel)
                channel.name = f"channels/{name}"
                channel.may_call[:] = sorted(set(channel.may_call))
                host.channels[name] = channel
        host.after("CreateChannel")
        return ipc_service_pb2.CreateChannelResponse(channel=channel)

    def UpdateChannel(self, request: Any, _: Any) -> Any:
        """Change where calls go, and what holds for them."""
        self.host.begin("UpdateChannel")
        with self.host.lock:
            channel = self.find(request.channel.name)
            for field in request.update_mask.paths:
                channel.ClearField(field)
            channel.MergeFrom(request.channel)
            channel.may_call[:] = sorted(set(channel.may_call))
        self.host.after("UpdateChannel")
        return ipc_service_pb2.UpdateChannelResponse(channel=channel)

    def AdmitInstance(self, request: Any, _: Any) -> Any:
        """Let an instance that lives in."""
        self.host.begin("AdmitInstance")
        with self.host.lock:
            channel = self.find(request.channel)
            assert request.folder == self.host.find(request.instance).channel_folder != ""
            if all(each.instance != request.instance for each in channel.admissions):
                channel.admissions.add(instance=request.instance, folder=request.folder)
        self.host.after("AdmitInstance")
        return ipc_service_pb2.AdmitInstanceResponse(channel=channel)

    def DetachInstance(self, request: Any, _: Any) -> Any:
        """Let an instance in no more, unless it has calls to answer."""
        self.host.begin("DetachInstance")
        with self.host.lock:
            channel, key = self.find(request.channel), request.instance.removeprefix("instances/")
            if key in self.host.in_call and not request.force:
                metadata = {"channel": channel.name, "instance": key, "calls": 1}
                raise FailedPrecondition("CALLS_IN_FLIGHT", key, metadata)
            self.host.dismiss(request.channel.removeprefix("channels/"), request.instance)
        self.host.after("DetachInstance")
        return ipc_service_pb2.DetachInstanceResponse(channel=channel)

    def DeleteChannel(self, request: Any, _: Any) -> Any:
        """Take a channel away."""
        self.host.begin("DeleteChannel")
        with self.host.lock:
            self.find(request.name)
            del self.host.channels[request.name.removeprefix("channels/")]
        self.host.after("DeleteChannel")
        return ipc_service_pb2.DeleteChannelResponse()

    def ListChannels(self, request: Any, _: Any) -> Any:
        """List channels."""
        with self.host.lock:
            found = list(self.host.channels.values())
            page, token = paginate(found, lambda c: c.name, request.page_size, request.page_token)
            return ipc_service_pb2.ListChannelsResponse(channels=page, next_page_token=token)

    def find(self, name: str) -> channel_pb2.Channel:
        """Return a channel by its resource name."""
        key = name.removeprefix("channels/")
        if key not in self.host.channels:
            raise NotFound("CHANNEL_NOT_FOUND", f"no channel {key}", {"channel": key})
        return self.host.channels[key]
