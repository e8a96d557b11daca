# SPDX-License-Identifier: Apache-2.0
"""All channels of an orchestrator, and the handing out of their descriptors."""

from __future__ import annotations

import dataclasses
import socket
import threading
import time
from functools import partial
from typing import TYPE_CHECKING

import structlog

from aetherless_common.settings import PRIVATE_DIR
from aetherless_ipc import errors, members
from aetherless_ipc.channel import Channel, Declaration, State
from aetherless_ipc.sidesocket import LONGEST_MESSAGE, SocketLoop, listen, socket_path
from aetherless_ipc.store import DeclarationStore
from aetherless_ring.layout import VERSION

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_common.settings import Settings

log = structlog.get_logger()


class Broker:
    """Keeps the channels; safe to call from any thread.

    Args:
        settings: the orchestrator's.
    """

    def __init__(self, settings: Settings) -> None:
        self._orchestrator_cgroup = settings.cgroup_name
        self._folder = ipc_folder(settings)
        self._store = DeclarationStore(self._folder / "channels.json")
        self._lock = threading.RLock()
        self._channels: dict[str, Channel] = {}
        self._listeners: dict[str, socket.socket] = {}
        self._loop = SocketLoop(self._lock)

    def start(self) -> None:
        """Make the channels anew that were declared before, and listen for their peers.

        Their regions died with the service that made them, and its peers' control sockets were
        closed; the peers attach again, as generation + 1.

        Raises:
            DataLoss: STORE_CORRUPT.
            FailedPrecondition: REGION_INVALID.
        """
        self._folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
        with self._lock:
            for declaration in self._store.load():
                self._open(declaration)
        self._loop.start()

    def stop(self) -> None:
        """Close every channel and tell the peers; the declarations stay."""
        with self._lock:
            for channel_id in list(self._channels):
                self._shut(channel_id)
        self._loop.stop()

    def create(self, channel_id: str, function_id: str, ring_bytes: int) -> Channel:
        """Make a channel, or return the one that exists with the same properties.

        Raises:
            AlreadyExists: CHANNEL_EXISTS.
            FailedPrecondition: REGION_INVALID.
        """
        with self._lock:
            existing = self._channels.get(channel_id)
            if existing is None:
                made = self._open(Declaration(channel_id, function_id, ring_bytes, time.time_ns()))
                self._save()
                return made
        declared = existing.declaration
        if (declared.function_id, declared.ring_bytes) != (function_id, ring_bytes):
            raise errors.channel_exists(channel_id)
        return existing

    def get(self, channel_id: str) -> Channel:
        """Return a channel.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        with self._lock:
            if channel_id not in self._channels:
                raise errors.channel_not_found(channel_id)
            return self._channels[channel_id]

    def all(self) -> list[Channel]:
        """Return the channels, in no order."""
        with self._lock:
            return list(self._channels.values())

    def delete(self, channel_id: str) -> None:
        """Close a channel, tell its peer, and forget it.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        with self._lock:
            self.get(channel_id)
            self._shut(channel_id)
            self._save()

    def socket_path(self, channel_id: str) -> Path:
        """Return a channel's side socket."""
        return socket_path(self._folder, channel_id)

    def _open(self, declaration: Declaration) -> Channel:
        """Make a channel's side socket and region; undo the one if the other fails."""
        channel_id = declaration.channel_id
        try:
            listener = listen(self.socket_path(channel_id))
            try:
                channel = Channel(declaration)
            except OSError:
                listener.close()
                self.socket_path(channel_id).unlink()
                raise
        except OSError as error:
            raise errors.region_invalid(channel_id, error) from error
        self._channels[channel_id] = channel
        self._listeners[channel_id] = listener
        self._loop.add(listener, partial(self._accept, channel, listener))
        return channel

    def _shut(self, channel_id: str) -> None:
        """Undo ``_open``."""
        channel, listener = self._channels.pop(channel_id), self._listeners.pop(channel_id)
        self._loop.remove(listener)
        listener.close()
        self.socket_path(channel_id).unlink(missing_ok=True)
        if channel.control is not None:
            self._loop.remove(channel.control)
            _say(channel.control, "closed")
        if channel.state is not State.CLOSED:
            channel.become_closed()

    def _save(self) -> None:
        """Store what is needed to make the channels again."""
        self._store.save(
            dataclasses.replace(channel.declaration, generation=channel.generation)
            for channel in self._channels.values()
        )

    def _accept(self, channel: Channel, listener: socket.socket) -> None:
        """Let a peer in, or refuse it and close the connection."""
        try:
            connection, _ = listener.accept()
        except OSError as error:  # the peer has gone again, or no descriptor is left
            log.warning("accept failed", channel=channel.declaration.channel_id, error=str(error))
            return
        connection.settimeout(0)
        peer = members.identify(connection)
        refusal = self._refusal(channel, peer)
        if peer is None or refusal:
            log.warning(
                "refused", channel=channel.declaration.channel_id, reason=refusal, peer=peer
            )
            _say(connection, f"error reason={refusal}")
            connection.close()
            return
        self._attach(channel, connection, peer)

    def _refusal(self, channel: Channel, peer: members.Peer | None) -> str:
        """Say why a peer may not attach; the empty string if it may."""
        function = channel.declaration.function_id
        if peer is None or not members.is_member(peer.cgroup, self._orchestrator_cgroup, function):
            return "PEER_NOT_ALLOWED"
        return "" if channel.state is State.DETACHED else f"CHANNEL_{channel.state.name}"

    def _attach(self, channel: Channel, connection: socket.socket, peer: members.Peer) -> None:
        """Hand the descriptors over, then wait for the peer's end."""
        descriptors = channel.become_attached(connection, peer)
        self._loop.add(connection, partial(self._hear, channel, connection))
        self._save()
        layout = channel.layout
        text = (
            f"ok version={VERSION} generation={channel.generation} "
            f"region_bytes={layout.region_bytes} ring_bytes={layout.ring_bytes}"
        )
        try:
            socket.send_fds(connection, [text.encode()], descriptors)
        except OSError as error:  # it went away between its connect and now
            log.warning("peer gone", channel=channel.declaration.channel_id, error=str(error))
            self._detach(channel, connection)

    def _hear(self, channel: Channel, control: socket.socket) -> None:
        """Detach a peer whose control socket ended; one that talks on it is cut off as well."""
        try:
            said = control.recv(LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            log.warning("peer talks", channel=channel.declaration.channel_id, bytes=len(said))
        self._detach(channel, control)

    def _detach(self, channel: Channel, control: socket.socket) -> None:
        """Take note that the peer is gone."""
        self._loop.remove(control)
        try:
            channel.become_detached()
        except OSError as error:
            log.exception("no new region", channel=channel.declaration.channel_id, error=str(error))


def ipc_folder(settings: Settings) -> Path:
    """Return the folder of the side sockets and the declarations."""
    return settings.runtime_dir / "ipc"


def _say(connection: socket.socket, text: str) -> None:
    """Send a last line to a peer that may be gone."""
    try:
        connection.send(text.encode())
    except OSError as error:
        log.debug("peer does not hear", error=str(error))
