# SPDX-License-Identifier: Apache-2.0
"""The RPCs of IpcService: decode, one call of the broker, encode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aetherless.ipc.v1 import channel_pb2, ipc_service_pb2_grpc
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common.errors import invalid_argument
from aetherless_common.pagination import paginate
from aetherless_ipc.broker import Broker
from aetherless_ipc.channel import Channel, State
from aetherless_ring.layout import ring_problem

if TYPE_CHECKING:
    import grpc

    from aetherless_common.settings import Settings

NAME_PREFIX = "channels/"
CHANNEL_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
FUNCTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")


class IpcServicer(ipc_service_pb2_grpc.IpcServiceServicer):
    """The service: its RPCs, and its start and stop for ``run_service``.

    Args:
        settings: the orchestrator's.
    """

    def __init__(self, settings: Settings) -> None:
        self._broker = Broker(settings)
        self._default_ring_bytes = settings.shm_buffer_size

    def start(self) -> None:
        """Make the declared channels again."""
        self._broker.start()

    def register(self, server: grpc.Server) -> None:
        """Add the RPCs to the server."""
        ipc_service_pb2_grpc.add_IpcServiceServicer_to_server(self, server)

    def stop(self) -> None:
        """Close the channels."""
        self._broker.stop()

    def CreateChannel(  # noqa: N802  # the contract's name
        self, request: pb.CreateChannelRequest, _context: grpc.ServicerContext
    ) -> pb.CreateChannelResponse:
        """Make a channel, or return the same one."""
        function_id = request.channel.function_id
        ring_bytes = request.channel.buffer_size_bytes or self._default_ring_bytes
        _check_id("channel_id", request.channel_id, CHANNEL_ID)
        _check_id("channel.function_id", function_id, FUNCTION_ID)
        if problem := ring_problem(ring_bytes):
            raise invalid_argument("channel.buffer_size_bytes", problem)
        channel = self._broker.create(request.channel_id, function_id, ring_bytes)
        return pb.CreateChannelResponse(channel=self._encode(channel))

    def GetChannel(  # noqa: N802  # the contract's name
        self, request: pb.GetChannelRequest, _context: grpc.ServicerContext
    ) -> pb.GetChannelResponse:
        """Return one channel."""
        channel = self._broker.get(_decode_name(request.name))
        return pb.GetChannelResponse(channel=self._encode(channel))

    def ListChannels(  # noqa: N802  # the contract's name
        self, request: pb.ListChannelsRequest, _context: grpc.ServicerContext
    ) -> pb.ListChannelsResponse:
        """Return one page of the channels."""
        page, token = paginate(
            self._broker.all(),
            lambda channel: channel.declaration.channel_id,
            request.page_size,
            request.page_token,
        )
        channels = [self._encode(channel) for channel in page]
        return pb.ListChannelsResponse(channels=channels, next_page_token=token)

    def DeleteChannel(  # noqa: N802  # the contract's name
        self, request: pb.DeleteChannelRequest, _context: grpc.ServicerContext
    ) -> pb.DeleteChannelResponse:
        """Close a channel."""
        self._broker.delete(_decode_name(request.name))
        return pb.DeleteChannelResponse()

    def _encode(self, channel: Channel) -> channel_pb2.Channel:
        """Return a channel as the contract has it."""
        declared = channel.declaration
        encoded = channel_pb2.Channel(
            name=NAME_PREFIX + declared.channel_id,
            function_id=declared.function_id,
            buffer_size_bytes=declared.ring_bytes,
            region_size_bytes=channel.layout.region_bytes,
            generation=channel.generation,
            attached=channel.state is State.ATTACHED,
            socket_path=str(self._broker.socket_path(declared.channel_id)),
        )
        encoded.create_time.FromNanoseconds(declared.created_ns)
        return encoded


def _decode_name(name: str) -> str:
    """Return the id in a resource name."""
    if not name.startswith(NAME_PREFIX) or not CHANNEL_ID.fullmatch(name[len(NAME_PREFIX) :]):
        raise invalid_argument("name", 'must be "channels/{channel}"')
    return name[len(NAME_PREFIX) :]


def _check_id(field: str, value: str, pattern: re.Pattern[str]) -> None:
    """Refuse an id that does not match."""
    if not pattern.fullmatch(value):
        raise invalid_argument(field, f"must match {pattern.pattern}")
