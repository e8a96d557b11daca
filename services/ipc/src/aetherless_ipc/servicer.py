# SPDX-License-Identifier: Apache-2.0
"""The RPCs of IpcService: decode, one call of the broker, encode."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless.ipc.v1 import channel_pb2, ipc_service_pb2_grpc
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common.pagination import paginate
from aetherless_ipc import codec
from aetherless_ipc.broker import Broker, ipc_folder
from aetherless_ipc.delivery import Surroundings
from aetherless_ipc.edgewatch import EdgeWatch
from aetherless_ipc.invoking import Invoker
from aetherless_ipc.nested import FunctionCalls
from aetherless_ipc.pipeline import PipelineDeclaration
from aetherless_ipc.pipeline_rpcs import PipelineRpcs
from aetherless_ipc.pipelines import Pipelines
from aetherless_ipc.running import Runner
from aetherless_ipc.sleepers import Sleepers
from aetherless_ipc.store import DeclarationStore
from aetherless_ipc.streaming import InvokeStream, encode
from aetherless_ring.layout import Layout

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    import grpc

    from aetherless_common.settings import Settings
    from aetherless_ipc.calls import Call
    from aetherless_ipc.channel import Channel

DRAIN_S = 5.0


class IpcServicer(PipelineRpcs):
    """The service: its RPCs, and its start and stop for ``run_service``.

    Args:
        settings: the orchestrator's.
    """

    def __init__(self, settings: Settings) -> None:
        self._sleepers = Sleepers(settings)
        around = Surroundings(self._sleepers.wake, self._sleepers.note)
        self._broker = Broker(settings, around)
        self._invoker = Invoker(self._broker)
        around.called = FunctionCalls(self._broker, self._invoker).take
        pipelines = self._pipelines_beside(settings, around)
        super().__init__(pipelines, self._broker.lock)
        self._runner = Runner(self._broker, self._invoker, pipelines)
        self._default_ring_bytes = settings.shm_buffer_size

    def _pipelines_beside(self, settings: Settings, around: Surroundings) -> Pipelines:
        """Return the pipelines, which hear of what happens to channels."""
        broker = self._broker
        watch = EdgeWatch(broker.rings, broker.lock, self._wake_function)
        store = DeclarationStore(ipc_folder(settings) / "pipelines.json", PipelineDeclaration)
        layout = Layout(settings.shm_buffer_size)
        pipelines = Pipelines(store, layout, broker.lock, watch, around.used)
        around.led, around.stray = pipelines.lead, pipelines.answered
        around.released = pipelines.await_release
        broker.observers.append(pipelines)
        return pipelines

    def _wake_function(self, function_id: str) -> None:
        """Wake the instance that a function's calls go to.

        Raises:
            AetherlessError: there is none, or what the snapshotter says.
        """
        self._sleepers.wake(self._invoker.channel(function_id).declared.instance)

    def start(self) -> None:
        """Make the declared channels and pipelines again."""
        self._broker.start()
        self._pipelines.start()
        self._sleepers.start()

    def register(self, server: grpc.Server) -> None:
        """Add the RPCs to the server."""
        ipc_service_pb2_grpc.add_IpcServiceServicer_to_server(self, server)

    def stop(self) -> None:
        """Close the channels."""
        self._pipelines.stop()
        self._broker.stop()
        self._sleepers.stop()

    def _shown(self, channel: Channel) -> channel_pb2.Channel:
        """Return a channel as the contract has it, between two changes of it."""
        with self._broker.lock:
            return codec.encode(channel)

    def CreateChannel(  # noqa: N802  # the contract's name
        self, request: pb.CreateChannelRequest, _context: grpc.ServicerContext
    ) -> pb.CreateChannelResponse:
        """Make a channel, or return the same one."""
        declaration = codec.declaration(request, self._default_ring_bytes)
        return pb.CreateChannelResponse(channel=self._shown(self._broker.create(declaration)))

    def GetChannel(  # noqa: N802  # the contract's name
        self, request: pb.GetChannelRequest, _context: grpc.ServicerContext
    ) -> pb.GetChannelResponse:
        """Return one channel."""
        channel = self._broker.get(codec.channel_id("name", request.name))
        return pb.GetChannelResponse(channel=self._shown(channel))

    def ListChannels(  # noqa: N802  # the contract's name
        self, request: pb.ListChannelsRequest, _context: grpc.ServicerContext
    ) -> pb.ListChannelsResponse:
        """Return one page of the channels."""

        def name(channel: Channel) -> str:
            return channel.channel_id

        page, token = paginate(self._broker.all(), name, request.page_size, request.page_token)
        channels: list[channel_pb2.Channel] = [self._shown(channel) for channel in page]
        return pb.ListChannelsResponse(channels=channels, next_page_token=token)

    def UpdateChannel(  # noqa: N802  # the contract's name
        self, request: pb.UpdateChannelRequest, _context: grpc.ServicerContext
    ) -> pb.UpdateChannelResponse:
        """Change parts of a channel."""
        channel_id = codec.channel_id("channel.name", request.channel.name)
        changes = codec.changes(request, self._default_ring_bytes)
        channel = self._broker.update(channel_id, **changes)
        return pb.UpdateChannelResponse(channel=self._shown(channel))

    def DeleteChannel(  # noqa: N802  # the contract's name
        self, request: pb.DeleteChannelRequest, _context: grpc.ServicerContext
    ) -> pb.DeleteChannelResponse:
        """Close a channel."""
        self._broker.delete(codec.channel_id("name", request.name))
        return pb.DeleteChannelResponse()

    def AdmitInstance(  # noqa: N802  # the contract's name
        self, request: pb.AdmitInstanceRequest, _context: grpc.ServicerContext
    ) -> pb.AdmitInstanceResponse:
        """Let an instance attach."""
        channel = self._broker.admit(
            codec.channel_id("channel", request.channel),
            codec.instance_id("instance", request.instance),
            Path(codec.absolute("folder", request.folder)),
        )
        return pb.AdmitInstanceResponse(channel=self._shown(channel))

    def DetachInstance(  # noqa: N802  # the contract's name
        self, request: pb.DetachInstanceRequest, _context: grpc.ServicerContext
    ) -> pb.DetachInstanceResponse:
        """Let an instance attach no more, and end its attachment."""
        patience = request.drain_timeout if request.HasField("drain_timeout") else None
        channel = self._broker.detach(
            codec.channel_id("channel", request.channel),
            codec.instance_id("instance", request.instance),
            DRAIN_S if patience is None else codec.seconds("drain_timeout", patience),
            force=request.force,
        )
        return pb.DetachInstanceResponse(channel=self._shown(channel))

    def Invoke(  # noqa: N802  # the contract's name
        self, request: pb.InvokeRequest, context: grpc.ServicerContext
    ) -> pb.InvokeResponse:
        """Call a function, or run a pipeline."""
        call, finish = self._awaited(request)
        if not context.add_callback(call.cancel):
            call.cancel()  # the caller has left already
        finish()
        return encode(call)

    def _awaited(self, request: pb.InvokeRequest) -> tuple[Call, Callable[[], None]]:
        """Return the call, or the run, that a request asks for, and what makes it."""
        if request.pipeline:
            run = self._runner.awaited(request)
            return run, partial(self._runner.finish, run)
        channel, call = self._invoker.awaited(request)
        return call, partial(self._invoker.finish, channel, call)

    def InvokeStream(  # noqa: N802  # the contract's name
        self, request_iterator: Iterator[pb.InvokeStreamRequest], context: grpc.ServicerContext
    ) -> Iterator[pb.InvokeStreamResponse]:
        """Call functions, many at once."""
        yield from InvokeStream(self._invoker, self._runner, request_iterator, context).answers()
