# SPDX-License-Identifier: Apache-2.0
"""The client of a function's channel: answers calls that come through shared memory.

>>> import aetherless_client
>>> @aetherless_client.serve
... def handle(data: bytes) -> bytes:
...     return data.upper()
"""

from __future__ import annotations

from aetherless_client.attachment import attach
from aetherless_client.calls import Request, Status
from aetherless_client.channel import Channel
from aetherless_client.errors import (
    AttachRefusedError,
    ClientError,
    InvalidRegionError,
    NoChannelError,
    PeerGoneError,
)
from aetherless_client.serving import current_request, serve

__all__ = [
    "AttachRefusedError",
    "Channel",
    "ClientError",
    "InvalidRegionError",
    "NoChannelError",
    "PeerGoneError",
    "Request",
    "Status",
    "attach",
    "current_request",
    "serve",
]
