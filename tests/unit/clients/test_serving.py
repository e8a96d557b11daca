# SPDX-License-Identifier: Apache-2.0
"""Each client answers calls, and attaches anew whatever the service does to it."""

from __future__ import annotations

import os
import random
import socket
import struct
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aetherless_ring.layout import SMALLEST_RING, Layout, RecordType
from framework.channel_peers import LANGUAGES, running
from framework.channel_service import LIMIT_S, Answer, Service, let_go, request

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

LAYOUT = Layout(SMALLEST_RING)
LARGEST_ECHO = LAYOUT.largest_payload - 24
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"


@contextmanager
def serving(language: str, folder: Path) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """Run a language's peer against a service of the test's own."""
    path = folder / "side.sock"
    with Service(path) as service, running(language, "serve", AETHER_CHANNEL=str(path)) as peer:
        yield service, peer


@pytest.fixture(params=LANGUAGES)
def served(
    request: pytest.FixtureRequest, tmp_path: Path
) -> Iterator[tuple[Service, subprocess.Popen[str]]]:
    """Return a service, and the peer that will come to it."""
    with serving(request.param, tmp_path) as made:
        yield made


Served = tuple[Service, "subprocess.Popen[str]"]


def test_calls_are_answered(served: Served) -> None:
    """Results of every size, a failure with its message, a method that is not there."""
    service, _ = served
    attached = service.attached()
    for size in (0, 1, 40, 1000, LARGEST_ECHO):
        data = random.Random(size).randbytes(size)
        answer = service.call(attached, data)
        assert (answer.status, answer.data) == (0, data)
    failed = service.call(attached, b"x", "fail")
    assert failed.status == 1
    assert b"told to fail" in failed.data
    assert service.call(attached, b"x", "nothing").status == 2


def test_the_handler_sees_the_request(served: Served) -> None:
    """Attempt and trace context."""
    service, _ = served
    attached = service.attached()
    attached.send(request(5, method="describe", attempt=3, trace=TRACE))
    assert attached.answer() == Answer(5, 0, b"3 " + TRACE)


def test_deadlines(served: Served) -> None:
    """What came too late is not begun; what has time is answered."""
    service, _ = served
    attached = service.attached()
    attached.send(request(1, b"x", deadline_ns=time.time_ns() - 1))
    attached.send(request(2, b"x", deadline_ns=time.time_ns() + int(LIMIT_S * 1e9)))
    answers = sorted((attached.answer() for _ in range(2)), key=lambda each: each.request_id)
    assert answers == [Answer(1, 3, b""), Answer(2, 0, b"x")]


def test_many_in_flight(served: Served) -> None:
    """More answers than the ring holds: the client waits for room, and each comes once."""
    service, _ = served
    attached = service.attached()
    count = 300
    answers: list[Answer] = []
    patience = 0.5  # until both rings are full
    for number in range(count):
        payload = request(number, bytes([number % 256]) * 1000)
        while not attached.producer.wait(len(payload), patience):
            answers.append(attached.answer())
            patience = 0.0
        attached.producer.publish(payload, RecordType.REQUEST)
    answers += [attached.answer() for _ in range(count - len(answers))]
    assert {answer.request_id: answer.data for answer in answers} == {
        number: bytes([number % 256]) * 1000 for number in range(count)
    }


def test_pings_and_strangers(served: Served) -> None:
    """A ping comes back; records of other types and malformed requests are passed over."""
    service, _ = served
    attached = service.attached()
    attached.send(b"anything", RecordType.USER)
    attached.send(b"anything", 77)
    attached.send(b"short", RecordType.REQUEST)
    attached.send(struct.pack("<QQIHH", 1, 0, 1, 9, 9), RecordType.REQUEST)
    attached.send(b"there?", RecordType.PING)
    assert attached.receive() == (RecordType.PONG, b"there?")


@pytest.mark.parametrize("word", [b"closed", b""], ids=["closed", "killed"])
def test_it_attaches_anew(served: Served, word: bytes) -> None:
    """After the service let go, or died: everything is given back, and nothing is lost after."""
    service, peer = served
    for turn in range(3):
        attached = service.attached()
        assert service.call(attached, b"%d" % turn).data == b"%d" % turn
        service.refuse()
        attached.end(word)
        let_go(peer.pid)
        service.listen()


def test_it_lets_go_when_asked(served: Served) -> None:
    """A shutdown ends the attachment after the answers to what came before it."""
    service, _ = served
    attached = service.attached()
    for number in range(5):
        attached.send(request(number, b"x"))
    attached.send(b"go", RecordType.SHUTDOWN)
    assert {attached.answer().request_id for _ in range(5)} == set(range(5))
    assert attached.has_ended()
    assert service.call(service.attached(), b"again").data == b"again"


def test_damage_ends_the_attachment(served: Served) -> None:
    """A record that fails its checksum is not handed out; the client wants a new region."""
    service, _ = served
    attached = service.attached()
    service.call(attached, b"first")
    attached.send_damaged(at=64)
    assert attached.has_ended()
    assert service.call(service.attached(), b"again").data == b"again"


def test_refusals(served: Served) -> None:
    """CHANNEL_CLOSED and CHANNEL_ATTACHED are tried again; PEER_NOT_ALLOWED is the end."""
    service, peer = served
    for reason in (b"CHANNEL_CLOSED", b"CHANNEL_ATTACHED", b"PEER_NOT_ALLOWED"):
        with service.connection() as connection:
            connection.send(b"error reason=" + reason)
    assert peer.wait(LIMIT_S) != 0


def test_what_is_no_region_is_refused(served: Served) -> None:
    """Memory without its seals, which could lose its pages under the client, is not mapped."""
    service, peer = served
    text = (
        f"ok version=1 generation=1 region_bytes={LAYOUT.region_bytes} ring_bytes={SMALLEST_RING}"
    )
    memory = os.memfd_create("aether-test-unsealed", os.MFD_CLOEXEC | os.MFD_ALLOW_SEALING)
    os.ftruncate(memory, LAYOUT.region_bytes)
    with service.connection() as connection:
        socket.send_fds(connection, [text.encode()], [memory, memory, memory])
    os.close(memory)
    assert peer.wait(LIMIT_S) != 0
