# SPDX-License-Identifier: Apache-2.0
"""Attaching: from the path of a side socket to a channel whose region is mapped and checked."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import time

from aetherless_client.channel import Channel
from aetherless_client.errors import AttachRefusedError, InvalidRegionError, NoChannelError
from aetherless_ring.layout import MAGIC, VERSION, HeaderField, Layout, ring_problem

ENVIRONMENT = "AETHER_CHANNEL"
ANSWER_TIMEOUT_S = 5.0
LONGEST_ANSWER = 512
DESCRIPTORS = 3
SEALS = fcntl.F_SEAL_SHRINK | fcntl.F_SEAL_GROW | fcntl.F_SEAL_SEAL
# Nobody listens during a checkpoint and while the service starts again; another process of the
# function may be attached for as long as it lives.
RETRY_S = 0.001
RETRY_ATTACHED_S = 0.05
_HEADER = struct.Struct("=8sIIQQQ")


def attach(path: str | os.PathLike[str] | None = None, *, timeout: float | None = None) -> Channel:
    """Attach to the function's channel; waits while nobody can be attached.

    Args:
        path: the side socket; by default what AETHER_CHANNEL names.
        timeout: seconds to try for; None tries until it succeeds.

    Raises:
        NoChannelError: no path is given and the environment names none.
        AttachRefusedError: PEER_NOT_ALLOWED at once; CHANNEL_ATTACHED and CHANNEL_CLOSED when
            the time is over.
        InvalidRegionError: what was handed out is no region of this version.
        FileNotFoundError, ConnectionError, TimeoutError: nobody attached it in that time.
    """
    where = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT, "")
    if not where:
        raise NoChannelError(f"{ENVIRONMENT} is not set")
    until = None if timeout is None else time.monotonic() + timeout
    while True:
        try:
            return _attach_once(where)
        except (FileNotFoundError, ConnectionError, TimeoutError, AttachRefusedError) as error:
            pause = _pause(error)
            if pause is None or (until is not None and time.monotonic() >= until):
                raise
        time.sleep(pause)


def _pause(error: Exception) -> float | None:
    """Return the seconds after which attaching is worth another try; None when it never is."""
    match error:
        case AttachRefusedError(reason="CHANNEL_ATTACHED"):
            return RETRY_ATTACHED_S
        case AttachRefusedError(reason=reason) if reason != "CHANNEL_CLOSED":
            return None
        case _:
            return RETRY_S


def _attach_once(path: str) -> Channel:
    """Connect, receive the descriptors, map the region; leave nothing open when that fails."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    descriptors: list[int] = []
    try:
        control.settimeout(ANSWER_TIMEOUT_S)
        control.connect(path)
        said, descriptors, _, _ = socket.recv_fds(control, LONGEST_ANSWER, DESCRIPTORS)
        fields = _granted(said.decode())
        memory, layout, generation = _map(descriptors, int(fields["ring_bytes"]))
    except BaseException:
        control.close()
        for descriptor in descriptors:
            os.close(descriptor)
        raise
    return Channel(control, descriptors, memory, layout, generation)


def _granted(said: str) -> dict[str, str]:
    """Return the fields of the service's ``ok``."""
    word, *fields = said.split() or [""]
    if not word:
        raise ConnectionResetError("the service ended the connection")
    named = dict(field.partition("=")[::2] for field in fields)
    if word != "ok":
        raise AttachRefusedError(named.get("reason", "INTERNAL"))
    return named


def _map(descriptors: list[int], ring_bytes: int) -> tuple[mmap.mmap, Layout, int]:
    """Map a region whole; return it with its layout and generation."""
    if len(descriptors) != DESCRIPTORS:
        raise InvalidRegionError(f"{len(descriptors)} descriptors came")
    descriptor = descriptors[0]
    size, layout = os.fstat(descriptor).st_size, Layout(ring_bytes)
    sealed = fcntl.fcntl(descriptor, fcntl.F_GET_SEALS) & SEALS == SEALS
    if not sealed or ring_problem(ring_bytes) or size != layout.region_bytes:
        raise InvalidRegionError(f"{size} bytes, sealed: {sealed}")
    # SAFETY: the seals hold, so that the mapping can't lose its pages (SIGBUS).
    memory = mmap.mmap(descriptor, size)
    magic, version, _, region, ring, generation = _HEADER.unpack_from(memory, HeaderField.MAGIC)
    if (magic, version, region, ring) != (MAGIC, VERSION, size, ring_bytes):
        memory.close()
        raise InvalidRegionError(f"header: {magic!r} version {version}")
    return memory, layout, generation
