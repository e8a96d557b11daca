# SPDX-License-Identifier: Apache-2.0
"""One instance that may attach to a channel: its side socket, and whether a peer is attached."""

from __future__ import annotations

from enum import Enum
from typing import TYPE_CHECKING

from aetherless_ipc.sidesocket import SOCKET_NAME, Pace, listen, remove
from aetherless_ipc.sparing import peer_log

if TYPE_CHECKING:
    import socket
    from pathlib import Path

    from aetherless_ipc.attachment import Attachment


class State(Enum):
    """Where an admission is in its life."""

    OPEN = "the side socket listens; a peer may attach"
    ATTACHED = "it listens, to say so; one peer is attached"
    DRAINING = "nobody may attach; what is due from the peer is waited for"
    CLOSED = "it is over"


class Admission:
    """An admission's state; it changes through the ``become_...`` methods only.

    Args:
        channel_id: the channel.
        instance: the instance whose processes may attach.
        folder: where its side socket is, or will be.

    Raises:
        OSError: the side socket could not be made.
    """

    def __init__(self, channel_id: str, instance: str, folder: Path) -> None:
        self.channel_id = channel_id
        self.instance = instance
        self.folder = folder
        self.state = State.OPEN
        self.generation = 0
        self.attachment: Attachment | None = None
        self.pace = Pace()  # of those who connect
        self.listener: socket.socket | None = listen(folder)

    @property
    def path(self) -> Path:
        """The side socket."""
        return self.folder / SOCKET_NAME

    @property
    def live(self) -> Attachment | None:
        """The attachment that calls may go to."""
        return self.attachment if self.state is State.ATTACHED else None

    def become_attached(self, attachment: Attachment) -> None:
        """Take note of the peer."""
        self._leave(State.OPEN)
        self.attachment = attachment
        self.generation = attachment.generation
        self._enter(State.ATTACHED, pid=attachment.peer.pid, cgroup=attachment.peer.cgroup)

    def become_detached(self) -> None:
        """Take note that the peer is gone."""
        self._leave(State.ATTACHED, State.DRAINING)
        self.attachment = None
        self._enter(State.OPEN if self.state is State.ATTACHED else self.state)

    def become_draining(self) -> None:
        """Let nobody attach any more: the side socket is gone, the peer stays."""
        self._leave(State.OPEN, State.ATTACHED)
        self._stop_listening()
        if self.attachment is not None:
            self.attachment.is_draining = True
        self._enter(State.DRAINING)

    def become_open(self) -> None:
        """Let peers attach again, with the one that is still there.

        Raises:
            OSError: the side socket could not be made.
        """
        self._leave(State.DRAINING)
        self.listener = listen(self.folder)
        if self.attachment is not None:
            self.attachment.is_draining = False
        self._enter(State.ATTACHED if self.attachment else State.OPEN)

    def become_closed(self) -> None:
        """End it, without its peer, who was let go of."""
        self._leave(State.OPEN, State.ATTACHED, State.DRAINING)
        self._stop_listening()
        self.attachment = None
        self._enter(State.CLOSED)

    def _stop_listening(self) -> None:
        """Take the side socket away before it is closed: nobody meets one that is dead."""
        if self.listener is not None:
            remove(self.folder)
            self.listener.close()
            self.listener = None

    def _leave(self, *origins: State) -> None:
        if self.state not in origins:
            raise RuntimeError(f"instance {self.instance} of {self.channel_id}: {self.state.name}")

    def _enter(self, state: State, **fields: object) -> None:
        self.state = state
        peer_log.info(
            "admission changed",
            instance=self.instance,
            state=state.name,
            channel=self.channel_id,
            generation=self.generation,
            **fields,
        )
