# SPDX-License-Identifier: Apache-2.0
"""The peer's side of a side socket: the reference for clients in other languages."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Self

from aetherless_ipc.region import MappedRegion
from aetherless_ipc.sidesocket import LONGEST_MESSAGE

if TYPE_CHECKING:
    from pathlib import Path

DESCRIPTORS = 3


class AttachRefusedError(Exception):
    """The service did not hand the descriptors out; ``reason`` is its word for why."""

    def __init__(self, reason: str) -> None:
        super().__init__(reason)
        self.reason = reason


class Attachment:
    """A channel's region, mapped, with its wakes and its control socket. A context manager.

    ``control`` is readable when the service has something to say: ``closed``, or its end.

    Args:
        path: the channel's side socket.
        timeout: seconds to wait for the service's answer.

    Raises:
        AttachRefusedError: PEER_NOT_ALLOWED, CHANNEL_ATTACHED or CHANNEL_CLOSED.
        OSError: nobody listens, or what was handed out is no region.
    """

    def __init__(self, path: Path, timeout: float = 5.0) -> None:
        self._descriptors: list[int] = []
        self.control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        try:
            self.control.settimeout(timeout)
            self.control.connect(str(path))
            said, self._descriptors, _, _ = socket.recv_fds(
                self.control, LONGEST_MESSAGE, DESCRIPTORS
            )
            _check_answer(said)
            region, self.wake_peer, self.wake_service = self._descriptors
            self.region = MappedRegion(region)
        except BaseException:
            self._close_descriptors()
            raise

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.region.memory.close()
        self._close_descriptors()

    def _close_descriptors(self) -> None:
        """Let go of all that was handed over."""
        self.control.close()
        for descriptor in self._descriptors:
            os.close(descriptor)


def _check_answer(said: bytes) -> None:
    """Refuse any answer but ``ok``."""
    word, _, rest = said.decode().partition(" ")
    if word != "ok":
        raise AttachRefusedError(rest.removeprefix("reason="))
