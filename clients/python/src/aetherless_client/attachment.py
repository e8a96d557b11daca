# SPDX-License-Identifier: Apache-2.0
"""Attaching: from the path of a side socket to a channel whose region is mapped and checked."""

from __future__ import annotations

import os
import socket
import time

from aetherless_client.channel import Channel
from aetherless_client.errors import AttachRefusedError, NoChannelError
from aetherless_client.lines import LONGEST_LINE, Line
from aetherless_client.region import DESCRIPTORS, Region, close_all, map_region

ENVIRONMENT = "AETHER_CHANNEL"
ANSWER_TIMEOUT_S = 5.0
# Nobody listens during a checkpoint and while the service starts again. A restore is looked out for
# often, as calls wait for it; what takes longer is no checkpoint.
RETRY_SOON_S = 0.00025
SOON_S = 0.2
RETRY_S = 0.001
# Another process of the function may be attached for as long as it lives.
RETRY_ATTACHED_S = 0.05


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
    where = side_socket(path)
    began = time.monotonic()
    until = None if timeout is None else began + timeout
    while True:
        tried = time.monotonic()
        try:
            return _attach_once(where)
        except (FileNotFoundError, ConnectionError, TimeoutError, AttachRefusedError) as error:
            pause = _pause(error, tried - began)
            if pause is None or (until is not None and tried >= until):
                raise
        time.sleep(pause)
        if time.monotonic() - tried > SOON_S:
            began = time.monotonic()  # it did not run for a while: it was restored now


def side_socket(path: str | os.PathLike[str] | None) -> str:
    """Return the path of the side socket, by default what the environment names.

    Raises:
        NoChannelError: it names none.
    """
    where = os.fspath(path) if path is not None else os.environ.get(ENVIRONMENT, "")
    if not where:
        raise NoChannelError(f"{ENVIRONMENT} is not set; declare the function with ipc: true")
    return where


def _pause(error: Exception, tried_for: float) -> float | None:
    """Return the seconds after which attaching is worth another try; None when it never is."""
    match error:
        case AttachRefusedError(reason="CHANNEL_ATTACHED"):
            return RETRY_ATTACHED_S
        case AttachRefusedError(reason=reason) if reason != "CHANNEL_CLOSED":
            return None
        case _:
            return RETRY_SOON_S if tried_for < SOON_S else RETRY_S


def _attach_once(path: str) -> Channel:
    """Connect, receive the descriptors, map the region; leave nothing open when that fails."""
    control = socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    try:
        control.settimeout(ANSWER_TIMEOUT_S)
        control.connect(path)
        region = _granted(control)
        control.settimeout(0)
    except BaseException:
        control.close()
        raise
    return Channel(control, region)


def _granted(control: socket.socket) -> Region:
    """Receive the service's ``ok`` and map the region that comes with it."""
    said, descriptors, _, _ = socket.recv_fds(
        control, LONGEST_LINE, DESCRIPTORS, socket.MSG_CMSG_CLOEXEC
    )
    try:
        return map_region(descriptors, _ring_bytes(Line.parse(said)))
    except BaseException:
        close_all(descriptors)
        raise


def _ring_bytes(line: Line) -> int:
    """Return the size that an ``ok`` tells; raises what any other answer means."""
    if not line.word:
        raise ConnectionResetError("the service ended the connection")
    if line.word != "ok":
        raise AttachRefusedError(line.fields.get("reason", "INTERNAL"))
    return line.number("ring_bytes")
