# SPDX-License-Identifier: Apache-2.0
"""What the Python client alone has: threads, attaching by hand, typed errors."""

from __future__ import annotations

import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import aetherless_client
from aetherless_ring import PayloadTooLargeError, RingCorruptError, RingEmptyError, RingFullError
from aetherless_ring.layout import RecordType
from framework.channel_edges import Edge, declare
from framework.channel_service import LIMIT_S, Answer, Attachment, Service, request

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Return a service of the test's own."""
    with Service(tmp_path / "side.sock") as made:
        yield made


@contextmanager
def attached(service: Service) -> Iterator[tuple[aetherless_client.Channel, Attachment]]:
    """Attach this process; return both sides."""
    sides: list[Attachment] = []
    server = threading.Thread(target=lambda: sides.append(service.attached()))
    server.start()
    with aetherless_client.attach(service.path, timeout=LIMIT_S) as channel:
        server.join(LIMIT_S)
        yield channel, sides[0]


def test_threads_run_handlers_at_once(service: Service) -> None:
    """Three handlers that wait for each other, with as many threads; answers come to all."""
    together = threading.Barrier(3)
    refusals: list[str] = []

    def meet(data: bytes) -> bytes:
        together.wait(LIMIT_S)
        return data + aetherless_client.current_request().method.encode()

    def run() -> None:
        try:
            aetherless_client.serve(path=service.path, threads=3)(meet)
        except aetherless_client.AttachRefusedError as error:
            refusals.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    side = service.attached()
    for number in range(6):
        side.send(request(number, b"to ", method=f"m{number}"))
    answers = {answer.request_id: answer for answer in (side.answer() for _ in range(6))}
    assert answers == {number: Answer(number, 0, b"to m%d" % number) for number in range(6)}
    side.end()
    with service.connection() as connection:
        connection.send(b"error reason=PEER_NOT_ALLOWED")
    thread.join(LIMIT_S)
    assert refusals == ["PEER_NOT_ALLOWED"]


def test_a_result_that_does_not_fit_is_a_failure(service: Service) -> None:
    """The caller is told, and the loop goes on."""

    def grow(data: bytes) -> bytes:
        return bytes(20000) if data == b"grow" else data

    def run() -> None:
        with pytest.raises(aetherless_client.AttachRefusedError):
            aetherless_client.serve(grow, path=service.path)

    thread = threading.Thread(target=run)
    thread.start()
    side = service.attached()
    limit = "a quarter of the ring (shm_buffer_size)"
    told = f"a result of 20000 bytes does not fit into {limit}"
    assert service.call(side, b"grow") == Answer(1, 1, told.encode())
    assert service.call(side, b"same").data == b"same"
    side.end()
    with service.connection() as connection:
        connection.send(b"error reason=PEER_NOT_ALLOWED")
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_no_channel_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """Outside of a function that has a channel."""
    monkeypatch.delenv("AETHER_CHANNEL", raising=False)
    with pytest.raises(aetherless_client.NoChannelError) as raised:
        aetherless_client.attach()
    assert raised.value.reason == "CHANNEL_NOT_FOUND"


def test_attaching_gives_up_in_time(service: Service, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nobody listens, and the time is over."""
    service.refuse()
    monkeypatch.setenv("AETHER_CHANNEL", str(service.path))
    with pytest.raises(FileNotFoundError):
        aetherless_client.attach(timeout=0.01)


def test_records_by_hand(service: Service) -> None:
    """Receive with and without a record, with a spin; publish what fits and what does not."""
    with attached(service) as (channel, side):
        assert channel.generation == 1
        with pytest.raises(RingEmptyError):
            channel.receive(timeout=0.01)
        side.send(b"one", 7)
        assert channel.receive(spin=0.01) == (7, b"one")
        with pytest.raises(PayloadTooLargeError):
            channel.publish(bytes(channel.layout.largest_payload + 1), 0)
        channel.publish(b"two", RecordType.USER)
        assert side.receive() == (RecordType.USER, b"two")
        with pytest.raises(RingFullError):  # noqa: PT012  # as many as there is room for
            while True:
                channel.publish(bytes(16000), 0, timeout=0.01)


def test_the_services_end_is_told(service: Service) -> None:
    """To one that waits for a record, and to one that waits for room."""
    with attached(service) as (channel, side):
        timer = threading.Timer(0.05, side.end)
        timer.start()
        with pytest.raises(aetherless_client.PeerGoneError) as raised:
            channel.receive()
        assert raised.value.reason == "PEER_GONE"
        timer.join()
    with attached(service) as (channel, side):
        side.control.close()  # as a service that was killed
        with pytest.raises(aetherless_client.PeerGoneError):  # noqa: PT012  # until it is full
            while True:
                channel.publish(bytes(16000), 0)


def test_a_stage_without_work_sleeps(service: Service) -> None:
    """Its edges wake it when they are rung, and not before."""
    with attached(service) as (channel, side), Edge("p/a/b") as into:
        declare(side, "p/b", number=1, inputs=1)
        into.feed(side)
        for _ in range(2):  # what the service says comes in one or two parts
            channel.sleep(0.1)
        begun = time.monotonic()
        channel.sleep(0.3)
        assert time.monotonic() - begun >= 0.3
        into.of_consumer.ring()
        begun = time.monotonic()
        channel.sleep(LIMIT_S)
        assert time.monotonic() - begun < LIMIT_S


def test_damage_is_told(service: Service) -> None:
    """With the ring's own error."""
    with attached(service) as (channel, side):
        side.send_damaged(at=0)
        with pytest.raises(RingCorruptError):
            channel.receive(timeout=LIMIT_S)


def test_time_left() -> None:
    """Positive, negative or none."""
    soon = request(1, deadline_ns=time.time_ns() + 10**9)
    parsed = [aetherless_client.Request.parse(each) for each in (soon, request(1, deadline_ns=1))]
    first, second = (each.time_left() for each in parsed if each)
    assert first is not None
    assert second is not None
    assert second < 0 < first <= 1
    endless = aetherless_client.Request.parse(request(1))
    assert endless
    assert endless.time_left() is None
