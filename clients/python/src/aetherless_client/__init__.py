# SPDX-License-Identifier: Apache-2.0
"""The client of a function's channel: answers and makes calls through shared memory.

>>> import aetherless_client
>>> @aetherless_client.serve
... def handle(data: bytes) -> bytes:
...     return data.upper()
"""

from __future__ import annotations

from aetherless_client.attachment import attach
from aetherless_client.calls import Request, Status, current_request
from aetherless_client.channel import Channel
from aetherless_client.errors import (
    AttachRefusedError,
    CallError,
    CallNotAllowedError,
    ClientError,
    FunctionNotFoundError,
    HandlerFailedError,
    InvalidRegionError,
    InvocationTimeoutError,
    LostCallError,
    MethodNotFoundError,
    NoChannelError,
    NoRoomError,
    NotDeliveredError,
    PeerGoneError,
)
from aetherless_client.process import call
from aetherless_client.serving import serve

__all__ = [
    "AttachRefusedError",
    "CallError",
    "CallNotAllowedError",
    "Channel",
    "ClientError",
    "FunctionNotFoundError",
    "HandlerFailedError",
    "InvalidRegionError",
    "InvocationTimeoutError",
    "LostCallError",
    "MethodNotFoundError",
    "NoChannelError",
    "NoRoomError",
    "NotDeliveredError",
    "PeerGoneError",
    "Request",
    "Status",
    "attach",
    "call",
    "current_request",
    "serve",
]
