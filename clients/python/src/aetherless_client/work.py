# SPDX-License-Identifier: Apache-2.0
"""A request that is to be handled, or was and is to be answered."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from aetherless_client.calls import Request, Status
    from aetherless_client.channel import Channel
    from aetherless_client.edges import Held
    from aetherless_client.stages import Stage


class Work(NamedTuple):
    """A request to handle.

    Args:
        channel: where its answer goes.
        request: what came.
        stage: the stage of a pipeline that it reached; None for a call.
        held: the records of edges that it was made of.
        outcome: what its handler did, if the fast path has called it.
    """

    channel: Channel
    request: Request
    stage: Stage | None
    held: tuple[Held, ...]
    outcome: tuple[Status, bytes] | None = None
