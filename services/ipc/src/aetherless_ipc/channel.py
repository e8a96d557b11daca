# SPDX-License-Identifier: Apache-2.0
"""One channel: what was declared, its region, and whether a peer is attached."""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum
from typing import TYPE_CHECKING

import structlog

from aetherless_ipc.region import Region
from aetherless_ring.layout import Layout

if TYPE_CHECKING:
    import socket

    from aetherless_ipc.members import Peer

log = structlog.get_logger()


class State(Enum):
    """Where a channel is in its life."""

    DETACHED = "a region is ready for the next peer"
    ATTACHED = "one peer has the region"
    CLOSED = "no region; the channel is deleted, or the service ends"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What stays of a channel when the service is started again.

    ``generation`` counts the attachments so far; ``created_ns`` is since the epoch.
    """

    channel_id: str
    function_id: str
    ring_bytes: int
    created_ns: int
    generation: int = 0


class Channel:
    """A channel's state; it changes through the ``become_...`` methods only.

    A peer that died may have left a record half written, and one that was cut off may still write.
    So each attachment gets a region of its own: the one before is closed, never handed out again.

    Args:
        declaration: what was asked for.

    Raises:
        OSError: the region could not be made.
    """

    def __init__(self, declaration: Declaration) -> None:
        self.declaration = declaration
        self.layout = Layout(declaration.ring_bytes)
        self.generation = declaration.generation
        self.state = State.DETACHED
        self.control: socket.socket | None = None
        self._region = self._make_region()

    def become_attached(self, control: socket.socket, peer: Peer) -> tuple[int, ...]:
        """Give the region to a peer; return the descriptors to hand out."""
        self._leave(State.DETACHED)
        self.generation += 1
        self.control = control
        self._enter(State.ATTACHED, pid=peer.pid, cgroup=peer.cgroup)
        return self._region.hand_out(self.generation)

    def become_detached(self) -> None:
        """Take note that the peer is gone; a new region is made for the next one.

        Raises:
            OSError: it could not be made; the channel is closed.
        """
        self._leave(State.ATTACHED)
        self._drop()
        try:
            self._region = self._make_region()
        except OSError:
            self._enter(State.CLOSED)
            raise
        self._enter(State.DETACHED)

    def become_closed(self) -> None:
        """Close the region and tell the peer, if there is one."""
        self._leave(State.DETACHED, State.ATTACHED)
        self._drop()
        self._enter(State.CLOSED)

    def _make_region(self) -> Region:
        return Region(f"aether-{self.declaration.channel_id}", self.layout)

    def _drop(self) -> None:
        """Close the region, then the control socket: its end says that the region is closed."""
        self._region.close()
        if self.control is not None:
            self.control.close()
            self.control = None

    def _leave(self, *origins: State) -> None:
        if self.state not in origins:
            raise RuntimeError(f"channel {self.declaration.channel_id} is {self.state.name}")

    def _enter(self, state: State, **fields: object) -> None:
        self.state = state
        log.info(
            "channel changed",
            state=state.name,
            channel=self.declaration.channel_id,
            generation=self.generation,
            **fields,
        )
