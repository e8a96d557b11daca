# SPDX-License-Identifier: Apache-2.0
"""One constructor per reason of ``aetherless.ipc.v1.ErrorReason``; the rest are in common."""

from __future__ import annotations

import errno
import os

from aetherless_common.errors import AlreadyExists, FailedPrecondition, NotFound


def channel_not_found(channel: str) -> NotFound:
    """Return the error for a channel that does not exist."""
    return NotFound("CHANNEL_NOT_FOUND", f"no channel {channel}", {"channel": channel})


def channel_exists(channel: str) -> AlreadyExists:
    """Return the error for a channel that exists with other properties."""
    return AlreadyExists(
        "CHANNEL_EXISTS",
        f"channel {channel} exists with another function or size",
        {"channel": channel},
        remedy="delete it first, or choose another id",
    )


def region_invalid(channel: str, cause: OSError) -> FailedPrecondition:
    """Return the error for a region, or its side socket, that the kernel refused."""
    number = cause.errno or 0
    return FailedPrecondition(
        "REGION_INVALID",
        f"channel {channel} can't be made: {os.strerror(number)}",
        {"channel": channel, "errno": errno.errorcode.get(number, number)},
    )
