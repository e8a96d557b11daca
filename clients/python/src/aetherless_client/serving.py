# SPDX-License-Identifier: Apache-2.0
"""The serve loop: attach, answer each request once, attach anew when the service let go."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from functools import partial
from typing import TYPE_CHECKING, Any

from aetherless_client.attachment import attach
from aetherless_client.calls import RESPONSE_HEAD, Request, Status, response
from aetherless_client.errors import PeerGoneError
from aetherless_ring import RingCorruptError, RingFullError
from aetherless_ring.layout import RecordType

if TYPE_CHECKING:
    import os

    from aetherless_client.channel import Channel

Handler = Callable[[bytes], bytes]
LONGEST_MESSAGE = 4096
log = logging.getLogger(__name__)
_current: ContextVar[Request] = ContextVar("aetherless_client.request")


def current_request() -> Request:
    """Return the request that the running handler answers; LookupError outside of one."""
    return _current.get()


def serve(
    handler: Handler | Mapping[str, Handler] | None = None,
    /,
    *,
    path: str | os.PathLike[str] | None = None,
    threads: int = 1,
    spin: float = 0.0,
) -> Any:
    """Answer the channel's calls; does not return. Also a decorator, with or without arguments.

    Args:
        handler: from the caller's bytes to the answer's, for every method; or one for each name.
        path: the side socket; by default what AETHER_CHANNEL names.
        threads: how many handlers run at once.
        spin: seconds to look for a request again and again before sleeping.

    Raises:
        NoChannelError, AttachRefusedError, InvalidRegionError: as ``attach``.
    """
    if handler is None:
        return partial(serve, path=path, threads=threads, spin=spin)
    find = handler.get if isinstance(handler, Mapping) else lambda _: handler
    while True:
        with attach(path) as channel:
            _serve_attached(channel, find, threads, spin)


def _serve_attached(
    channel: Channel, find: Callable[[str], Handler | None], threads: int, spin: float
) -> None:
    """Answer until the service ends the attachment or asks to let go; all answers are out then."""
    if threads == 1:
        _loop(channel, lambda request: _answer(channel, find, request), spin)
        return
    with ThreadPoolExecutor(threads, "aetherless-handler") as pool:
        _loop(channel, lambda request: pool.submit(_answer, channel, find, request), spin)


def _loop(channel: Channel, take: Callable[[Request], object], spin: float) -> None:
    """Hand requests over until there is an end."""
    try:
        while True:
            kind, payload = channel.receive(spin=spin)
            if kind == RecordType.SHUTDOWN:
                return
            if kind == RecordType.PING:
                channel.publish(payload, RecordType.PONG)
            elif kind == RecordType.REQUEST and (request := Request.parse(payload)):
                take(request)
    except PeerGoneError:
        return
    except RingCorruptError:
        log.exception("the ring is damaged: attaching anew")


def _answer(channel: Channel, find: Callable[[str], Handler | None], request: Request) -> None:
    """Run the handler of one request and publish its answer, if anyone still waits for it."""
    status, data = _outcome(find, request)
    if len(data) > channel.layout.largest_payload - RESPONSE_HEAD:
        status, data = Status.FAILED, f"a result of {len(data)} bytes does not fit".encode()
    left = request.time_left()
    timeout = None if left is None else max(0.0, left)
    try:
        channel.publish(response(request.id, status, data), RecordType.RESPONSE, timeout)
    except (PeerGoneError, RingFullError, RingCorruptError) as error:
        log.warning("no answer to request %d: %s", request.id, error)


def _outcome(find: Callable[[str], Handler | None], request: Request) -> tuple[Status, bytes]:
    """Return the status and the data of an answer."""
    left = request.time_left()
    if left is not None and left <= 0:
        return Status.DEADLINE_PASSED, b""
    handler = find(request.method)
    if handler is None:
        return Status.NO_METHOD, b""
    token = _current.set(request)
    try:
        return Status.RESULT, bytes(handler(request.data))
    except Exception as error:  # whatever a handler raises is an answer
        log.exception("the handler failed")
        message = f"{type(error).__name__}: {error}".encode(errors="replace")[:LONGEST_MESSAGE]
        return Status.FAILED, message.decode(errors="ignore").encode()
    finally:
        _current.reset(token)
