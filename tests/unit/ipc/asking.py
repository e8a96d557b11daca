# SPDX-License-Identifier: Apache-2.0
"""What the tests ask of an ipc service."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aetherless.ipc.v1 import channel_pb2
from aetherless.ipc.v1 import ipc_service_pb2 as pb

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

RING = 1 << 16
WAIT_S = 20.0


def create(stub: IpcServiceStub, name: str = "c", function: str = "f", size: int = RING) -> Any:
    """Create a channel."""
    channel = channel_pb2.Channel(function_id=function, buffer_size_bytes=size)
    request = pb.CreateChannelRequest(channel_id=name, channel=channel)
    return stub.CreateChannel(request).channel


def admit(stub: IpcServiceStub, folder: Path, instance: str = "f-r1-0", name: str = "c") -> str:
    """Let an instance attach, and calls go to it; return the path of its side socket."""
    folder.mkdir(parents=True, exist_ok=True)
    channel = channel_pb2.Channel(name=f"channels/{name}", instance=f"instances/{instance}")
    stub.UpdateChannel(pb.UpdateChannelRequest(channel=channel))
    request = pb.AdmitInstanceRequest(
        channel=channel.name, instance=channel.instance, folder=str(folder)
    )
    return str(stub.AdmitInstance(request).channel.socket_path)


def detach(stub: IpcServiceStub, instance: str = "f-r1-0", name: str = "c") -> Any:
    """Detach an instance."""
    request = pb.DetachInstanceRequest(channel=f"channels/{name}", instance=f"instances/{instance}")
    return stub.DetachInstance(request).channel


def get(stub: IpcServiceStub, name: str = "c") -> Any:
    """Get a channel."""
    return stub.GetChannel(pb.GetChannelRequest(name=f"channels/{name}")).channel


def wait_detached(stub: IpcServiceStub) -> None:
    """Wait until the service has noticed that the peer is gone."""
    ends_at = time.monotonic() + WAIT_S
    while get(stub).attached:
        assert time.monotonic() < ends_at
        time.sleep(0.005)


def call(  # the fields of the contract
    function: str = "c",
    data: bytes = b"",
    method: str = "",
    timeout: float = WAIT_S,
    *,
    patient: bool = False,
) -> pb.InvokeRequest:
    """Return the request for a call."""
    request = pb.InvokeRequest(
        function=f"functions/{function}", data=data, method=method, wait_for_room=patient
    )
    request.timeout.FromMilliseconds(round(timeout * 1000))
    return request
