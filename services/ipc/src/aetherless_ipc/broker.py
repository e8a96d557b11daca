# SPDX-License-Identifier: Apache-2.0
"""All channels of an orchestrator, and who may attach to them."""

from __future__ import annotations

import threading
import time
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import structlog

from aetherless_common.settings import PRIVATE_DIR
from aetherless_ipc import errors, members
from aetherless_ipc.admission import Admission, State
from aetherless_ipc.attachment import Attachment, say
from aetherless_ipc.channel import Channel, Declaration
from aetherless_ipc.delivery import Delivery
from aetherless_ipc.generation import Generation
from aetherless_ipc.ringloop import RingLoop
from aetherless_ipc.sidesocket import LONGEST_MESSAGE, SocketLoop
from aetherless_ipc.sparing import peer_log
from aetherless_ipc.store import DeclarationStore
from aetherless_ring._native import be_wary

if TYPE_CHECKING:
    import socket

    from aetherless_common.settings import Settings
    from aetherless_ipc.delivery import Surroundings

log = structlog.get_logger()


class Observer(Protocol):
    """Is told of attachments, with the broker's lock held; may not wait."""

    def attached(self, attachment: Attachment) -> None:
        """Hear that a peer was let in; it has its descriptors."""

    def ended(self, attachment: Attachment) -> None:
        """Hear that a peer is gone, or was let go of."""


class Broker:
    """Keeps the channels; safe to call from any thread.

    ``lock`` is held for each change of a channel, its admissions and their attachments.

    Args:
        settings: the orchestrator's.
        around: what deliveries are surrounded by.
    """

    def __init__(self, settings: Settings, around: Surroundings) -> None:
        self.observers: list[Observer] = []
        self.rings = RingLoop()
        self._around = around
        self._orchestrator_cgroup = settings.cgroup_name
        self._folder = ipc_folder(settings)
        self._store = DeclarationStore(self._folder / "channels.json", Declaration)
        self.lock = threading.RLock()
        self._channels: dict[str, Channel] = {}
        self._loop = SocketLoop(self.lock)

    def start(self) -> None:
        """Make the channels anew that were declared before, and listen for their peers.

        Their regions died with the service that made them, and its peers' control sockets were
        closed; the peers attach again, as generation + 1. An instance whose folder is gone ended
        meanwhile and is not admitted any more.

        Raises:
            DataLoss: STORE_CORRUPT.
            OSError: the kernel refused what doorbells need that are rung without waiting.
        """
        be_wary()
        self._folder.mkdir(mode=PRIVATE_DIR, exist_ok=True)
        with self.lock:
            for declaration in self._store.load():
                self._restore(declaration)
        self.rings.start()
        self._loop.start()

    def stop(self) -> None:
        """End every attachment and tell the peers; the declarations stay, calls do not."""
        with self.lock:
            for channel in self._channels.values():
                self._shut(channel)
            self._channels.clear()
        self._loop.stop()
        self.rings.stop()

    def create(self, wanted: Declaration) -> Channel:
        """Make a channel, or return the one that exists with the same properties.

        Raises:
            AlreadyExists: CHANNEL_EXISTS.
        """
        with self.lock:
            existing = self._channels.get(wanted.channel_id)
            if existing is None:
                made = self._add(wanted)
                self._save()
                return made
        if not existing.declared.same_as(wanted):
            raise errors.channel_exists(wanted.channel_id)
        return existing

    def get(self, channel_id: str) -> Channel:
        """Return a channel; what goes on with it has come to an end.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        with self.lock:
            return self.look_up(channel_id)

    def look_up(self, channel_id: str) -> Channel:
        """Return a channel without waiting for what goes on with it.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        channel = self._channels.get(channel_id)
        if channel is None:
            raise errors.channel_not_found(channel_id)
        return channel

    def all(self) -> list[Channel]:
        """Return the channels, in no order."""
        with self.lock:
            return list(self._channels.values())

    def update(self, channel_id: str, **changes: object) -> Channel:
        """Change what is declared of a channel; the arguments are fields of Declaration.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        with self.lock:
            channel = self.get(channel_id)
            channel.become_declared(**changes)
            channel.lead()
            self._save()
        return channel

    def delete(self, channel_id: str) -> None:
        """End a channel's attachments, tell the peers, and forget it.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
        """
        with self.lock:
            channel = self.get(channel_id)
            self._shut(channel)
            del self._channels[channel_id]
            self._save()
            channel.generation.remove()  # last: a channel that is still declared has its count

    def admit(self, channel_id: str, instance: str, folder: Path) -> Channel:
        """Let an instance attach; nothing changes when it may already. A detach is given up.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
            FailedPrecondition: REGION_INVALID, the side socket could not be made.
        """
        with self.lock:
            channel = self.get(channel_id)
            found = channel.admissions.get(instance)
            try:
                if found and found.folder != folder:
                    self._close(channel, found, "closed")
                elif found and found.state is State.DRAINING:
                    self._reopen(channel, found)
                if instance not in channel.admissions:
                    self._open(channel, instance, folder)
            except OSError as error:
                raise errors.region_invalid(channel_id, error) from error
            self._save()
        return channel

    def detach(self, channel_id: str, instance: str, patience: float, *, force: bool) -> Channel:
        """Let nobody of an instance attach any more, and end its attachment once nothing is due.

        Args:
            channel_id: the channel.
            instance: the instance; one that is not admitted needs nothing.
            patience: seconds to wait for what is due.
            force: end it all the same after that.

        Raises:
            NotFound: CHANNEL_NOT_FOUND.
            FailedPrecondition: CALLS_IN_FLIGHT; the instance is admitted as before.
        """
        with self.lock:
            channel = self.get(channel_id)
            admission = channel.admissions.get(instance)
            if admission is None:
                return channel
            self._drain(channel, admission)
            attachment = admission.attachment
        due = self._settle(attachment, patience) if attachment else 0
        with self.lock:
            if admission.state is State.DRAINING and (force or not due):
                self._close(channel, admission, "closed")
                self._save()
            elif admission.state is not State.CLOSED:  # it was admitted again if not draining
                if admission.state is State.DRAINING:
                    self._reopen(channel, admission)
                raise errors.calls_in_flight(channel_id, instance, due)
        return channel

    def _settle(self, attachment: Attachment, patience: float) -> int:
        """Wait for what is due from a peer; return how much still is."""
        until = time.monotonic() + patience
        due = attachment.await_answers(patience)
        return due or int(not self._around.released(attachment, max(0, until - time.monotonic())))

    def _add(self, declaration: Declaration) -> Channel:
        """Make a channel."""
        channel_id = declaration.channel_id
        generation = Generation(self._folder / f"{channel_id}.generation")
        delivery = Delivery(channel_id, self._around)
        channel = self._channels[channel_id] = Channel(declaration, generation, delivery)
        return channel

    def _restore(self, declaration: Declaration) -> None:
        """Make a channel of a service before, with the admissions whose folders exist."""
        channel = self._add(declaration)
        for instance, folder in declaration.admissions.items():
            try:
                self._open(channel, instance, Path(folder))
            except OSError as error:
                log.info("not admitted again", instance=instance, error=str(error))
        channel.note_admissions()

    def _open(self, channel: Channel, instance: str, folder: Path) -> None:
        """Admit an instance."""
        admission = Admission(channel.channel_id, instance, folder)
        channel.admissions[instance] = admission
        self._listen(channel, admission)

    def _reopen(self, channel: Channel, admission: Admission) -> None:
        """Admit an instance again whose detach is given up."""
        admission.become_open()
        self._listen(channel, admission)

    def _listen(self, channel: Channel, admission: Admission) -> None:
        """Wait for peers of an admission."""
        listener = admission.listener
        if listener is not None:
            accept = partial(self._accept, channel, admission, listener)
            self._loop.add(listener, accept, admission.pace)
        channel.lead()

    def _drain(self, channel: Channel, admission: Admission) -> None:
        """Let nobody attach any more, and send it no further calls."""
        if admission.listener is not None:
            self._loop.remove(admission.listener)
            admission.become_draining()
            channel.lead()

    def _close(self, channel: Channel, admission: Admission, word: str) -> None:
        """End an admission, and its attachment with a last word."""
        self._drain(channel, admission)
        attachment = admission.attachment
        admission.become_closed()
        del channel.admissions[admission.instance]
        if attachment is not None:
            self._let_go(attachment, word)

    def _shut(self, channel: Channel) -> None:
        """End the calls and all admissions of a channel."""
        channel.delivery.become_closed()
        for admission in list(channel.admissions.values()):
            self._close(channel, admission, "closed")

    def _save(self) -> None:
        """Store what is needed to make the channels again."""
        for channel in self._channels.values():
            channel.note_admissions()
        self._store.save(channel.declared for channel in self._channels.values())

    def _accept(self, channel: Channel, admission: Admission, listener: socket.socket) -> None:
        """Let a peer in, or refuse it and close the connection."""
        try:
            connection, _ = listener.accept()
        except OSError as error:  # the peer has gone again, or no descriptor is left
            peer_log.warning("accept failed", instance=admission.instance, error=str(error))
            return
        connection.settimeout(0)
        if admission.attachment is not None:
            # The peer before may have just let go, for this very connection.
            self._hear(channel, admission, admission.attachment.control)
        peer = members.identify(connection)
        refusal = self._refusal(admission, peer)
        if peer is not None and not refusal:
            refusal = self._attach(channel, admission, connection, peer)
        if refusal:
            peer_log.warning("refused", instance=admission.instance, reason=refusal, peer=peer)
            say(connection, f"error reason={refusal}")
            connection.close()

    def _refusal(self, admission: Admission, peer: members.Peer | None) -> str:
        """Say why a peer may not attach; the empty string if it may."""
        group = self._orchestrator_cgroup
        if peer is None or not members.is_member(peer.cgroup, group, admission.instance):
            return "PEER_NOT_ALLOWED"
        return {State.OPEN: "", State.ATTACHED: "CHANNEL_ATTACHED"}.get(
            admission.state, "CHANNEL_CLOSED"
        )

    def _attach(
        self, channel: Channel, admission: Admission, control: socket.socket, peer: members.Peer
    ) -> str:
        """Hand the descriptors over, then wait for the peer's end; return a refusal or nothing."""
        try:
            generation = channel.generation.become_next()
            attachment = Attachment(
                channel.channel_id,
                admission.instance,
                generation,
                control,
                peer,
                layout=channel.layout,
                loop=self.rings,
                owner=channel.delivery,
            )
        except OSError:
            peer_log.exception("not attached", instance=admission.instance)
            return "CHANNEL_CLOSED"
        try:
            attachment.begin()
        except OSError as error:  # it went away between its connect and now
            peer_log.warning("peer gone", instance=admission.instance, error=str(error))
            attachment.end()
            return ""
        # The peer has what it waits for: all else comes after that.
        admission.become_attached(attachment)
        self._loop.add(control, partial(self._hear, channel, admission, control))
        for observer in self.observers:
            observer.attached(attachment)
        channel.lead()
        return ""

    def _hear(self, channel: Channel, admission: Admission, control: socket.socket) -> None:
        """Detach a peer whose control socket ended; one that talks on it is cut off as well."""
        try:
            said = control.recv(LONGEST_MESSAGE)
        except BlockingIOError:
            return
        except OSError:
            said = b""
        if said:
            peer_log.warning("peer talks", instance=admission.instance, bytes=len(said))
        self._lose(channel, admission)

    def _lose(self, channel: Channel, admission: Admission) -> None:
        """Take note that a peer is gone."""
        attachment = admission.attachment
        admission.become_detached()
        channel.lead()
        if attachment is not None:
            self._let_go(attachment, "")

    def _let_go(self, attachment: Attachment, word: str) -> None:
        """End an attachment."""
        self._loop.remove(attachment.control)
        attachment.end(word)
        for observer in self.observers:
            observer.ended(attachment)


def ipc_folder(settings: Settings) -> Path:
    """Return the folder of the declarations."""
    return settings.runtime_dir / "ipc"
