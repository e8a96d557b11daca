# SPDX-License-Identifier: Apache-2.0
"""What a service's refusal of a step means. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_common.errors import Aborted, DeadlineExceeded, Internal, Unavailable

if TYPE_CHECKING:
    from aetherless_common.errors import AetherlessError
    from aetherless_registry.desired import Desired

# The world was not any more as it was observed: somebody died, or was deleted, in between.
OUTDATED = frozenset(
    {
        "CHANNEL_NOT_FOUND",
        "ENDPOINT_EXISTS",
        "ENDPOINT_IN_USE",
        "ENDPOINT_NOT_FOUND",
        "INSTANCE_NOT_FOUND",
        "INVALID_STATE_TRANSITION",
        "NETNS_UNREACHABLE",
        "SNAPSHOT_NOT_FOUND",
    }
)
# A snapshot that was good, and is made anew: the host is not what it was.
SPOILED = frozenset({"SNAPSHOT_INCOMPATIBLE", "SNAPSHOT_STALE"})


def passes(error: AetherlessError) -> bool:
    """Tell whether an error passes by itself: a service restarts, or is at work on the thing."""
    if isinstance(error, DeadlineExceeded):
        return error.reason == "PEER_TIMEOUT"
    return isinstance(error, (Unavailable, Aborted))


def may_pass(error: AetherlessError) -> bool:
    """Tell whether a step may succeed when the world was looked at again."""
    return isinstance(error, Internal) or error.reason in OUTDATED


def is_spoiled(desired: Desired, error: AetherlessError) -> bool:
    """Tell whether a snapshot is to be made anew.

    What serves and is damaged fails loudly; what is gone back to has its files, and nobody else.
    """
    if error.reason == "SNAPSHOT_CORRUPT":
        return desired.target in desired.kept and not desired.repairing
    return error.reason in SPOILED
