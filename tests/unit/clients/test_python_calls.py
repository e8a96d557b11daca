# SPDX-License-Identifier: Apache-2.0
"""What the Python client alone has around calls: threads, asyncio, forks, calls alone."""

from __future__ import annotations

import asyncio
import shutil
import struct
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

import aetherless_client
from aetherless_client.asynchronous import acall, aserve
from aetherless_ring import PayloadTooLargeError
from aetherless_ring.layout import RecordType
from framework.channel_edges import Carried, Edge, declare
from framework.channel_peers import CLIENTS
from framework.channel_service import LIMIT_S, Answer, Attachment, Service, request
from framework.programs import REPOSITORY

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

CALL = 6


@pytest.fixture
def service(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Service]:
    """Return a service of the test's own, which the environment names."""
    with Service(tmp_path / "side.sock") as made:
        monkeypatch.setenv("AETHER_CHANNEL", str(made.path))
        yield made


def called(side: Attachment) -> Carried:
    """Return the next call."""
    kind, payload = side.receive()
    assert kind == CALL
    return Carried.parse(payload)


def reply(side: Attachment, call: Carried, data: bytes, status: int = 0) -> None:
    """Answer a call."""
    side.send(struct.pack("<QII", call.run, status, 0) + data, RecordType.RESPONSE)


def refuse(service: Service, side: Attachment) -> None:
    """End an attachment for good."""
    side.end()
    with service.connection() as connection:
        connection.send(b"error reason=PEER_NOT_ALLOWED")


@contextmanager
def answering(service: Service, side: Callable[[], Attachment]) -> Iterator[None]:
    """Answer every call with its data, in reverse order of three."""

    def run() -> None:
        attached = side()
        for _ in range(10):
            calls = [called(attached) for _ in range(3)]
            for call in reversed(calls):
                reply(attached, call, call.data + b"!")

    thread = threading.Thread(target=run)
    thread.start()
    yield
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def test_calls_without_serving(service: Service) -> None:
    """Many threads at once, each with its own answer."""
    with answering(service, service.attached), ThreadPoolExecutor(6) as pool:
        data = [b"%d" % number for number in range(30)]
        results = pool.map(lambda each: aetherless_client.call("other", each), data)
        assert list(results) == [each + b"!" for each in data]


def test_threads_serve_and_call(service: Service) -> None:
    """Handlers that call, and threads outside of them that call, by one attachment."""
    together = threading.Barrier(3)

    def handle(data: bytes) -> bytes:
        together.wait(LIMIT_S)
        return aetherless_client.call("other", b"inside " + data)

    refusals: list[str] = []

    def run() -> None:
        try:
            aetherless_client.serve(threads=3)(handle)
        except aetherless_client.AttachRefusedError as error:
            refusals.append(error.reason)

    thread = threading.Thread(target=run)
    thread.start()
    side = service.attached()
    for turn in range(4):
        with ThreadPoolExecutor(2) as pool:
            for number in range(3):
                side.send(request(turn * 3 + number, b"%d" % number))
            outside = [pool.submit(aetherless_client.call, "other", b"outside") for _ in range(2)]
            calls = [called(side) for _ in range(5)]
            assert sorted(call.data for call in calls) == [
                b"inside 0", b"inside 1", b"inside 2", b"outside", b"outside"
            ]  # fmt: skip
            for call in calls:
                reply(side, call, call.data + b"?")
            answers = {side.answer() for _ in range(3)}
            assert [future.result(LIMIT_S) for future in outside] == [b"outside?"] * 2
        assert answers == {
            Answer(turn * 3 + number, 0, b"inside %d?" % number) for number in range(3)
        }
    refuse(service, side)
    thread.join(LIMIT_S)
    assert refusals == ["PEER_NOT_ALLOWED"]


def test_time_runs_out(service: Service) -> None:
    """Before anybody attached the function, and before an answer."""
    service.refuse()
    with pytest.raises(aetherless_client.InvocationTimeoutError) as raised:
        aetherless_client.call("other", timeout=0.05)
    assert isinstance(raised.value, TimeoutError)
    service.listen()
    sides: list[Attachment] = []
    thread = threading.Thread(target=lambda: sides.append(service.attached()))
    thread.start()
    with pytest.raises(aetherless_client.InvocationTimeoutError) as raised:
        aetherless_client.call("other", timeout=0.3)
    assert raised.value.function == "other"
    thread.join(LIMIT_S)
    late = called(sides[0])
    assert late.deadline_ns < time.time_ns()
    reply(sides[0], late, b"late")
    with answering(service, lambda: sides[0]), ThreadPoolExecutor(3) as pool:
        list(pool.map(lambda _: aetherless_client.call("other", b"x"), range(30)))


def test_a_call_that_is_lost(service: Service) -> None:
    """The attachment ends: every caller is told, and the next call attaches anew."""
    with ThreadPoolExecutor(3) as pool:
        futures = [pool.submit(aetherless_client.call, "other") for _ in range(3)]
        side = service.attached()
        for _ in range(3):
            called(side)
        side.end()
        for future in futures:
            with pytest.raises(aetherless_client.LostCallError) as raised:
                future.result(LIMIT_S)
            assert raised.value.reason == "PEER_GONE"
        again = pool.submit(aetherless_client.call, "other", b"y", timeout=LIMIT_S)
        side = service.attached()
        reply(side, called(side), b"z")
        assert again.result(LIMIT_S) == b"z"


def test_a_call_that_does_not_fit(service: Service) -> None:
    """It is refused before anything is sent."""
    with ThreadPoolExecutor(1) as pool:
        future = pool.submit(aetherless_client.call, "other", bytes(20000))
        side = service.attached()
        with pytest.raises(PayloadTooLargeError):
            future.result(LIMIT_S)
        assert side.consumer.receive_many(1) == []


FORKS = """
import os
import aetherless_client
assert aetherless_client.call("other", b"before") == b"before!"
child = os.fork()
if child == 0:
    names = []
    for number in os.listdir("/proc/self/fd"):
        try:
            names.append(os.readlink("/proc/self/fd/" + number))
        except FileNotFoundError:
            continue
    os._exit(sum("memfd" in name or "eventfd" in name or "eventpoll" in name for name in names))
assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
assert aetherless_client.call("other", b"after") == b"after!"
"""


def test_a_child_has_no_part_in_it(service: Service) -> None:
    """It lets go of its parent's attachment, which lives on."""
    with subprocess.Popen([sys.executable, "-c", FORKS]) as process:
        try:
            side = service.attached()
            for _ in range(2):
                call = called(side)
                reply(side, call, call.data + b"!")
            assert process.wait(LIMIT_S) == 0
        finally:
            process.kill()


async def slow(data: bytes) -> bytes:
    """Call twice at once from a coroutine."""
    if data == b"fail":
        raise ValueError("told to")
    first, second = await asyncio.gather(acall("one", data), acall("two", data))
    return first + b" " + second + b" %d" % aetherless_client.current_request().attempt


def test_asyncio(service: Service) -> None:
    """Coroutines serve and call; plain functions too; stages as well; it ends when cancelled."""
    ended = threading.Event()

    async def serve() -> None:
        task = asyncio.create_task(aserve({"": slow, "plain": bytes.upper}))
        await asyncio.to_thread(ended.wait, LIMIT_S)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    side = service.attached()
    for number in range(2):
        side.send(request(number, b"%d" % number, attempt=7))
    for call in sorted((called(side) for _ in range(4)), key=lambda each: each.method):
        reply(side, call, call.method.encode() + call.data)
    assert {side.answer() for _ in range(2)} == {
        Answer(number, 0, b"one%d two%d 7" % (number, number)) for number in range(2)
    }
    assert service.call(side, b"abc", "plain").data == b"ABC"
    failed = service.call(side, b"fail")
    assert (failed.status, failed.data) == (1, b"ValueError: told to")
    assert service.call(side, b"", "nothing").status == 2
    declare(side, "p/b", number=1, inputs=1, method="plain")
    with Edge("p/a/b") as into:
        into.feed(side)
        into.put(99, b"stage")
        assert side.answer() == Answer(99, 0, b"STAGE", stage=2)
        into.wait_consumed()
    ended.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive()


async def cancelled(_: bytes) -> bytes:
    """Wait for something that others have cancelled."""
    waited: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
    waited.cancel()
    return await waited


def test_a_handler_that_meets_a_cancellation_is_answered(service: Service) -> None:
    """As any other failure: the caller does not wait, and its record is let go of."""
    ended = threading.Event()

    async def serve() -> None:
        task = asyncio.create_task(aserve(cancelled))
        await asyncio.to_thread(ended.wait, LIMIT_S)
        task.cancel()

    thread = threading.Thread(target=lambda: asyncio.run(serve()))
    thread.start()
    side = service.attached()
    assert service.call(side, b"") == Answer(1, 1, b"CancelledError: ")
    declare(side, "p/b", number=1, inputs=1)
    with Edge("p/a/b") as into:
        into.feed(side)
        into.put(99)
        assert side.answer().status == 1
        into.wait_consumed()
    ended.set()
    thread.join(LIMIT_S)
    assert not thread.is_alive()


HANDLER = """
import sys
import aetherless_client, aetherless_ring
assert aetherless_ring.IMPLEMENTATION == "reference"
sys.stderr.write("reference\\n")
aetherless_client.serve(lambda data: aetherless_client.call("other", data.upper()))
"""


def test_the_two_folders_are_enough(service: Service, tmp_path: Path) -> None:
    """Copied beside a handler, with the standard library alone: the ring in pure Python."""
    for source in (
        CLIENTS / "python" / "src" / "aetherless_client",
        REPOSITORY / "services" / "ipc" / "ring" / "src" / "aetherless_ring",
    ):
        ignored = shutil.ignore_patterns("*.so", "__pycache__")
        shutil.copytree(source, tmp_path / "handler" / source.name, ignore=ignored)
    (tmp_path / "handler" / "handler.py").write_text(HANDLER)
    command = [sys.executable, "-S", "handler.py"]
    with subprocess.Popen(command, cwd=tmp_path / "handler", stderr=subprocess.PIPE) as process:
        try:
            side = service.attached()
            for number in range(1, 100):
                side.send(request(number, b"abc" * number))
                call = called(side)
                assert call.data == b"ABC" * number
                reply(side, call, b"%d" % number)
                assert side.answer() == Answer(number, 0, b"%d" % number)
            declare(side, "p/b", number=1, inputs=1, outputs=1)
            with Edge("p/a/b") as into, Edge("p/b/c") as out:
                into.feed(side)
                out.drain(side)
                for run in range(1000, 1020):
                    into.put(run, b"x")
                    call = called(side)
                    reply(side, call, b"y")
                    assert (record := out.take()).data == b"y"
                    assert record.run == run
                into.wait_consumed()
        finally:
            process.kill()
    assert process.stderr
