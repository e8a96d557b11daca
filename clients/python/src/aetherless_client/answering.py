# SPDX-License-Identifier: Apache-2.0
"""From a request to its answer: the handler, then the channel or the next stages' edges."""

from __future__ import annotations

import logging
import time
from typing import TYPE_CHECKING, TypeVar

from aetherless_client import calls
from aetherless_client.calls import RESPONSE_HEAD, Request, Status, current, response
from aetherless_client.channel import ROOM_SLICE_S
from aetherless_client.errors import PeerGoneError
from aetherless_ring import RingClosedError, RingCorruptError, RingFullError
from aetherless_ring.layout import RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_client.client import Client
    from aetherless_client.edges import Output
    from aetherless_client.stages import Route, Stage
    from aetherless_client.work import Work

LONGEST_MESSAGE = 4096
# Seconds between looks for an edge that is not there yet.
EDGE_SLICE_S = 0.001
log = logging.getLogger(__name__)
Handler = TypeVar("Handler")


def answer(client: Client, work: Work, status: Status, data: bytes) -> None:
    """Bring the outcome of a request to where it belongs, then let go of it."""
    try:
        if status == Status.RESULT and work.stage is not None and work.stage.output_count:
            status, data = _pass_on(client, work, work.stage, data)
            if status == Status.PASSED_ON and work.held:
                return
        _respond(client, work, status, data)
    except (PeerGoneError, RingFullError, RingCorruptError) as error:
        log.warning("no answer to request %d: %s", work.request.id, error)
    finally:
        client.finish(work)


def outcome(
    find: Callable[[str], Callable[[bytes], bytes] | None], work: Work
) -> tuple[Status, bytes]:
    """Run the handler; return how that ended."""
    request = work.request
    status, handler = choose(find, work)
    if handler is None:
        return status, b""
    token = current.set(request)
    try:
        return Status.RESULT, data_of(handler(request.data))
    except Exception as error:  # whatever a handler raises is an answer
        log.exception("the handler failed")
        return Status.FAILED, message_of(error)
    finally:
        current.reset(token)


def choose(find: Callable[[str], Handler | None], work: Work) -> tuple[Status, Handler | None]:
    """Return the handler of a request, or the status that says why there is none."""
    request = work.request
    if request.deadline_ns and request.deadline_ns <= time.time_ns():
        return Status.DEADLINE_PASSED, None
    if work.stage is not None:
        return Status.NO_METHOD, find(work.stage.method)
    # Only stages have a slash in their names, and this is none of ours.
    return Status.NO_METHOD, None if "/" in request.method else find(request.method)


def data_of(result: object) -> bytes:
    """Return what a handler returned: bytes, or anything else that can be looked at as bytes.

    Raises:
        TypeError: it can't; ``bytes(5)`` would be five zeros, and a text has no encoding.
    """
    if isinstance(result, bytes):
        return result
    try:
        return bytes(memoryview(result))  # type: ignore[arg-type] # tried
    except TypeError:
        kind = type(result).__name__
        raise TypeError(f"the handler returned {kind}, where bytes are due") from None


def message_of(error: BaseException) -> bytes:
    """Return what is told of a handler's exception."""
    message = f"{type(error).__name__}: {error}".encode(errors="replace")[:LONGEST_MESSAGE]
    return message.decode(errors="ignore").encode()


def _respond(client: Client, work: Work, status: Status, data: bytes) -> None:
    """Publish the answer to a request, if anyone still waits for it."""
    largest = work.channel.layout.largest_payload - RESPONSE_HEAD
    if len(data) > largest:
        status, data = Status.FAILED, _too_large(data)
    left = work.request.time_left()
    # A deadline that has passed is told all the same, if there is room.
    timeout = None if left is None else max(0.0, left)
    stage = work.stage.number + 1 if work.stage else 0
    payload = response(work.request.id, status, data, stage)
    work.channel.publish(payload, RecordType.RESPONSE, timeout, meanwhile=client.glance)


def _pass_on(client: Client, work: Work, stage: Stage, data: bytes) -> tuple[Status, bytes]:
    """Publish a stage's result to every stage that reads of it; return what to answer."""
    request = work.request
    routes = stage.routes
    if len(routes) < stage.output_count:
        routes = _routes(client, stage, request)
        if len(routes) < stage.output_count:
            return Status.DEADLINE_PASSED, b""
    records = []
    for _, method, output in routes:
        record = calls.request(
            request.id, request.deadline_ns, request.attempt, request.trace, method, data
        )
        if len(record) > output.largest:
            return Status.FAILED, _too_large(data)
        records.append(record)
    for route, record in zip(routes, records, strict=True):
        try:
            route.output.publish(record, RecordType.REQUEST)
        except (RingFullError, RingCorruptError, PeerGoneError):
            if not _publish(client, work, stage, route.target, record):
                return Status.DEADLINE_PASSED, b""
    return Status.PASSED_ON, b""


def _routes(client: Client, stage: Stage, request: Request) -> tuple[Route, ...]:
    """Return where to write to; waits until all of a stage's edges are there."""
    while True:
        routes, left = stage.routes, request.time_left()
        late = stage.is_dropped or (left is not None and left <= 0)
        if late or len(routes) >= stage.output_count:
            return routes
        client.glance()
        time.sleep(EDGE_SLICE_S)


def _publish(client: Client, work: Work, stage: Stage, target: str, record: bytes) -> bool:
    """Put a record into an edge; waits for room, and for a new region if the edge gets one."""
    while True:
        route = stage.route(target)
        output = route.output if route else None
        left = work.request.time_left()
        try:
            if output is not None:
                output.publish(record, RecordType.REQUEST)
                return True
        except RingFullError:
            pass
        except RingCorruptError:
            work.channel.note_damage(f"{stage.pipeline}/{stage.name}/{target}")
            output = None
        except PeerGoneError:
            output = None  # dropped meanwhile
        if stage.is_dropped or (left is not None and left <= 0):
            return False
        _wait(output, len(record), ROOM_SLICE_S if left is None else min(left, ROOM_SLICE_S))
        client.glance()


def _wait(output: Output | None, length: int, seconds: float) -> None:
    try:
        if output is not None:
            output.wait(length, seconds)
            return
    except (RingClosedError, RingCorruptError):
        pass  # the service drops it, or the next attempt to publish tells of it
    time.sleep(EDGE_SLICE_S)


def _too_large(data: bytes) -> bytes:
    limit = "a quarter of the ring (shm_buffer_size)"
    return f"a result of {len(data)} bytes does not fit into {limit}".encode()
