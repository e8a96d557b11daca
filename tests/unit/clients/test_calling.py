# SPDX-License-Identifier: Apache-2.0
"""Each client calls other functions from inside a handler, and tells how that ended."""

from __future__ import annotations

import struct
import time
from typing import TYPE_CHECKING

import pytest

from aetherless_ring.layout import RecordType
from framework.channel_edges import Carried
from framework.channel_peers import CALLERS, running
from framework.channel_service import LIMIT_S, Answer, Attachment, Service, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

CALL = 6
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
REASONS = {
    1: "HANDLER_FAILED",
    2: "METHOD_NOT_FOUND",
    3: "INVOCATION_TIMEOUT",
    4: "CALL_NOT_ALLOWED",
    5: "FUNCTION_NOT_FOUND",
    6: "NOT_DELIVERED",
    7: "RING_FULL",
}


@pytest.fixture(params=CALLERS)
def service(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Service]:
    """Return a service to which a peer will come."""
    path = tmp_path / "side.sock"
    with Service(path) as made, running(request.param, "serve", AETHER_CHANNEL=str(path)):
        yield made


def asked(side: Attachment, number: int, data: bytes, **fields: object) -> Carried:
    """Have a handler make a call; return the call."""
    side.send(request(number, data, method="relay", **fields))  # type: ignore[arg-type]  # its own
    return received(side)


def received(side: Attachment) -> Carried:
    """Return the next record, a call."""
    kind, payload = side.receive()
    assert kind == CALL
    return Carried.parse(payload)


def reply(side: Attachment, called: Carried, status: int = 0, data: bytes = b"") -> None:
    """Answer a call."""
    side.send(struct.pack("<QII", called.run, status, 0) + data, RecordType.RESPONSE)


def test_a_call_is_made_and_answered(service: Service) -> None:
    """With what the request brought: its trace, and no later deadline."""
    side = service.attached()
    deadline = time.time_ns() + int(LIMIT_S * 1e9)
    for size in (0, 1, 5000):
        call = asked(side, 7, b"other/m " + bytes(size), trace=TRACE, deadline_ns=deadline)
        assert (call.method, call.data, call.attempt) == ("other/m", bytes(size), 1)
        assert call.trace == TRACE
        assert call.deadline_ns == deadline
        reply(side, call, data=b"r" * size)
        assert side.answer() == Answer(7, 0, b"r" * size)


@pytest.mark.parametrize("status", REASONS)
def test_each_status_is_an_error(service: Service, status: int) -> None:
    """With the contract's word, and the message that came."""
    side = service.attached()
    reply(side, asked(side, 1, b"other x"), status, b"why")
    assert side.answer() == Answer(1, 0, f"{REASONS[status]} why".encode())


def test_requests_that_come_meanwhile_are_kept(service: Service) -> None:
    """A handler that waits for its answer takes other records in; pings and strangers too."""
    side = service.attached()
    call = asked(side, 1, b"other x")
    for number in range(2, 12):
        side.send(request(number, b"%d" % number))
    side.send(b"anything", 77)
    side.send(struct.pack("<QII", 123456, 0, 0), RecordType.RESPONSE)
    side.send(b"short", RecordType.RESPONSE)
    side.send(b"there?", RecordType.PING)
    reply(side, call, data=b"late")
    records = [side.receive() for _ in range(12)]
    assert (RecordType.PONG, b"there?") in records
    responses = {payload[16:] for kind, payload in records if kind == RecordType.RESPONSE}
    assert responses == {b"late", *(b"%d" % number for number in range(2, 12))}


def test_ids_are_not_used_twice(service: Service) -> None:
    """Each call has its own, whoever answers first."""
    side = service.attached()
    seen = set()
    for number in range(20):
        call = asked(side, number, b"other x")
        seen.add(call.run)
        reply(side, call)
        side.answer()
    assert len(seen) == 20


def test_a_call_ends_with_the_requests_deadline(service: Service) -> None:
    """Nobody answers: the handler is told in time, and the loop goes on."""
    side = service.attached()
    asked(side, 1, b"other x", deadline_ns=time.time_ns() + int(2e9))
    while (answer := service_call(service, side)).request_id == 1:
        assert answer.status in {0, 3}
    assert answer.data == b"again"


def service_call(service: Service, side: Attachment) -> Answer:
    """Call the peer while an answer to an earlier request may come first."""
    side.send(request(next(service.numbers) + 1000, b"again"))
    return side.answer()


def test_the_services_end_is_told_to_the_caller(service: Service) -> None:
    """The call is lost, the handler goes on, and the client attaches anew."""
    side = service.attached()
    asked(side, 1, b"other x")
    side.end()
    side = service.attached()
    assert service.call(side, b"again").data == b"again"
    reply(side, asked(side, 2, b"other x"), data=b"y")
    assert side.answer() == Answer(2, 0, b"y")
