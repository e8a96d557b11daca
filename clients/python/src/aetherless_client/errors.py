# SPDX-License-Identifier: Apache-2.0
"""What a client refuses, each with the contract's word for it in ``reason``.

What the ring refuses keeps its own types (``aetherless_ring.RingFullError`` and the others).
"""

from __future__ import annotations


class ClientError(Exception):
    """Anything that attaching to a channel, or using one, refuses."""

    reason = "INTERNAL"


class NoChannelError(ClientError):
    """The environment names no channel: the program doesn't run as a function that has one."""

    reason = "CHANNEL_NOT_FOUND"


class AttachRefusedError(ClientError):
    """The service did not hand the channel out.

    Args:
        reason: PEER_NOT_ALLOWED, CHANNEL_ATTACHED or CHANNEL_CLOSED.
    """

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class InvalidRegionError(ClientError):
    """What was handed out is no sealed region of this version."""

    reason = "REGION_INVALID"


class PeerGoneError(ClientError):
    """The service ended the attachment; attach anew."""

    reason = "PEER_GONE"
