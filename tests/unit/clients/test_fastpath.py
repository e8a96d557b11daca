# SPDX-License-Identifier: Apache-2.0
"""The Python client's fast path: what goes it, and what happens beside it meanwhile."""

from __future__ import annotations

import gc
import sys
import threading
import time
from contextlib import ExitStack
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest
from unit.clients.serving import asked, in_thread, reply, serving

import aetherless_client
from aetherless_ring.layout import RecordType
from framework.channel_edges import Edge, declare, settle
from framework.channel_service import LIMIT_S, Answer, Service, request

if TYPE_CHECKING:
    from collections.abc import Iterator

    from framework.channel_service import Attachment

PASSED_ON = 8
Handler = Any


@pytest.fixture
def service(tmp_path: Path) -> Iterator[Service]:
    """Return a service of the test's own."""
    with Service(tmp_path / "side.sock") as made:
        yield made


@pytest.fixture
def edges() -> Iterator[ExitStack]:
    """Return what closes the edges of a test."""
    with ExitStack() as stack:
        yield stack


def way() -> bytes:
    """Return by which module the running handler was called."""
    return str(sys._getframe(2).f_globals["__name__"]).encode()


def tell_way(_: bytes) -> bytes:
    """Return which way a request went."""
    return way()


FAST = b"aetherless_client.fastpath"


@pytest.mark.parametrize("given", [tell_way, {"": tell_way, "m": tell_way}])
@pytest.mark.parametrize("spin", [0.0, 0.002])
def test_the_common_case_goes_it(
    service: Service, edges: ExitStack, given: Handler, spin: float
) -> None:
    """Calls by any method, the first stage, one between, the last; both of one handler and many."""
    out, into, back = (edges.enter_context(Edge(name)) for name in ("p/a/b", "q/a/b", "q/b/c"))
    with serving(service, given, spin=spin) as side:
        assert service.call(side, b"x") == Answer(1, 0, FAST)
        assert service.call(side, b"x", "m") == Answer(2, 0, FAST)
        declare(side, "p/a", outputs=1)
        out.drain(side)
        settle(side)
        side.send(request(7, b"x", method="p/a"))
        assert out.take().data == FAST
        assert side.answer() == Answer(7, PASSED_ON, b"", stage=1)
        declare(side, "q/b", number=1, inputs=1, outputs=1, method="m")
        into.feed(side)
        back.drain(side)
        settle(side)
        for run in range(20):
            into.put(run)
            assert back.take().data == FAST
        into.wait_consumed()


def test_several_inputs_do_not(service: Service, edges: ExitStack) -> None:
    """Their parts wait for each other in the ordinary code; calls go it all the same."""
    one, two = (edges.enter_context(Edge(f"p/{name}/z")) for name in "ab")
    with serving(service, tell_way) as side:
        declare(side, "p/z", number=2, inputs=2)
        one.feed(side)
        two.feed(side, place=1)
        for run in range(5):
            one.put(run)
            two.put(run)
            answer = side.answer()
            assert answer.request_id == run
            assert answer.data != FAST
        assert service.call(side, b"x").data == FAST


def test_one_call_after_another_while_threads_wait(service: Service) -> None:
    """With more threads than requests each is answered, whichever way it goes."""
    with serving(service, tell_way, threads=3) as side:
        for number in range(1, 200):
            assert service.call(side, b"x").request_id == number


def test_a_thread_of_the_handlers_reads_its_answer(service: Service, edges: ExitStack) -> None:
    """It takes the lead that the fast path lends; the handler's result goes out all the same."""
    into = edges.enter_context(Edge("p/a/b"))

    def handle(data: bytes) -> bytes:
        return in_thread(lambda: aetherless_client.call("other", data, path=service.path))

    with serving(service, handle) as side:
        declare(side, "p/b", number=1, inputs=1)
        into.feed(side)
        for run in range(1000, 1020):
            into.put(run, b"%d" % run)
            reply(side, asked(side), b"once")
            assert side.answer() == Answer(run, 0, b"once", stage=2)
            side.send(request(run, b"call"))
            reply(side, asked(side), b"again")
            assert side.answer() == Answer(run, 0, b"again")
        into.wait_consumed()


def test_a_record_that_another_thread_overtakes_stays_held(
    service: Service, edges: ExitStack
) -> None:
    """The one behind it is finished first: neither is given back before both are done."""
    into = edges.enter_context(Edge("p/a/b"))
    begun = {name: threading.Event() for name in (b"call", b"one")}
    ends = {name: threading.Event() for name in begun}
    ways: dict[bytes, bytes] = {}

    def handle(data: bytes) -> bytes:
        ways[data] = way()
        if data in begun:
            begun[data].set()
            assert ends[data].wait(LIMIT_S)
        return data

    with serving(service, handle, threads=2) as side:
        declare(side, "p/b", number=1, inputs=1)
        into.feed(side)
        settle(side)
        side.send(request(1, b"call"))
        assert begun[b"call"].wait(LIMIT_S)
        into.put(11, b"one")
        assert begun[b"one"].wait(LIMIT_S)
        assert ways[b"one"] == FAST
        ends[b"call"].set()
        assert side.answer() == Answer(1, 0, b"call")
        for run in range(12, 20):
            into.put(run, b"two")
            assert side.answer() == Answer(run, 0, b"two", stage=2)
        assert into.consumed() == 0
        ends[b"one"].set()
        assert side.answer() == Answer(11, 0, b"one", stage=2)
        into.wait_consumed()


def test_threads_take_the_lead_from_each_other_at_any_moment(
    service: Service, edges: ExitStack
) -> None:
    """Each request is answered once and none is counted as at work for ever after."""
    into = edges.enter_context(Edge("p/a/b"))
    shortest = sys.getswitchinterval()
    edges.callback(sys.setswitchinterval, shortest)
    sys.setswitchinterval(1e-6)
    numbers = range(1, 2001)

    def handle(data: bytes) -> bytes:
        time.sleep(int(data) % 3 * 1e-5)  # for others to run meanwhile
        return data

    with serving(service, handle, threads=3) as side:
        declare(side, "p/b", number=1, inputs=1)
        into.feed(side)
        settle(side)
        answered = []
        for number in numbers:
            data = b"%d" % number
            put = into.put if number % 2 else lambda run, what: side.send(request(run, what))
            put(number, data)
            if number > 4:
                answered.append(side.answer().request_id)
        answered += [side.answer().request_id for _ in range(4)]
        assert sorted(answered) == list(numbers)
        into.wait_consumed()
        side.send(b"go", RecordType.SHUTDOWN)
        assert side.has_ended()
        service.attached().end()


@pytest.mark.parametrize("delivery", ["at-least-once", "at-most-once"])
def test_an_edge_is_dropped_while_its_record_is_handled(
    service: Service, edges: ExitStack, delivery: str
) -> None:
    """What was taken is finished first, then the consumer says that it let go."""
    into = edges.enter_context(Edge("p/a/b"))

    def handle(data: bytes) -> bytes:
        return data and in_thread(lambda: aetherless_client.call("other", path=service.path))

    with serving(service, handle) as side:
        declare(side, "p/b", number=1, inputs=1, delivery=delivery)
        into.feed(side, generation=3)
        into.put(9, b"x")
        call = asked(side)
        into.drop(side, "consumer")
        settle_beside(side)
        assert into.let_go() == 0
        assert into.runs() == ({9} if delivery == "at-most-once" else set())
        reply(side, call, b"done")
        assert side.answer() == Answer(9, 0, b"done", stage=2)
        into.wait_consumed()
        settle(side)
        assert into.let_go() == 3
        assert into.runs() == set()


def settle_beside(side: Attachment) -> None:
    """Wait until the client has read what was said while its handler works."""
    over = bytes(8)  # of a run that nobody has: the side socket is read first
    side.send(over, 7)
    side.send(b"there?", RecordType.PING)
    assert side.receive() == (RecordType.PONG, b"there?")


def test_a_shutdown_waits_for_a_handler(service: Service) -> None:
    """Its answer is out before the attachment ends, though another thread has read the shutdown."""

    def handle(_: bytes) -> bytes:
        return in_thread(lambda: aetherless_client.call("other", path=service.path))

    with serving(service, handle) as side:
        side.send(request(5, b"x"))
        call = asked(side)
        side.send(b"go", RecordType.SHUTDOWN)
        settle_beside(side)
        reply(side, call, b"done")
        assert side.answer() == Answer(5, 0, b"done")
        assert side.has_ended()
        again = service.attached()
        again.send(request(6, b"x"))
        reply(again, asked(again), b"done")
        assert again.answer() == Answer(6, 0, b"done")
        again.end()


def test_results_of_every_kind(service: Service) -> None:
    """What is no bytes is made so, or is the handler's failure; a failure's text is told."""
    results: dict[bytes, Any] = {b"a": bytearray(b"x"), b"b": memoryview(b"y")}
    strange: dict[bytes, Any] = {b"text": "x", b"int": 5, b"none": None, b"list": [1]}
    results.update(strange)

    def handle(data: bytes) -> Any:
        return results[data]

    with serving(service, handle) as side:
        assert service.call(side, b"a") == Answer(1, 0, b"x")
        assert service.call(side, b"b") == Answer(2, 0, b"y")
        assert service.call(side, b"d") == Answer(3, 1, b"KeyError: b'd'")
        for number, (data, result) in enumerate(strange.items(), 4):
            kind = type(result).__name__
            text = f"TypeError: the handler returned {kind}, where bytes are due"
            assert service.call(side, data) == Answer(number, 1, text.encode())
        assert service.call(side, b"a") == Answer(8, 0, b"x")


@pytest.mark.parametrize("kept", [0, 1])
def test_a_failure_keeps_no_region(tmp_path: Path, edges: ExitStack, kept: int) -> None:
    """Nor does a handler that keeps it: a region that stays mapped is in a checkpoint's way."""
    failures: list[BaseException] = []

    def handle(data: bytes) -> bytes:
        try:
            return {b"": b""}[data]
        except KeyError as error:
            failures.extend([error] * kept)
            raise

    gc.disable()
    edges.callback(gc.enable)
    with (
        Service(tmp_path / "its.sock") as service,
        Edge("p/a/b") as into,
        serving(service, handle) as side,
    ):
        declare(side, "p/b", number=1, inputs=1)
        into.feed(side)
        settle(side)
        into.put(3, b"x")
        assert side.answer().status == 1
        assert service.call(side, b"x").status == 1
    del into, side
    assert "aether-test" not in Path("/proc/self/maps").read_text()


def test_an_exception_that_is_no_failure_ends_the_loop(service: Service) -> None:
    """As it would without the fast path; the request is not answered."""
    ended: list[BaseException] = []

    def handle(_: bytes) -> bytes:
        sys.exit("told to")

    def run() -> None:
        try:
            aetherless_client.serve(handle, path=service.path)
        except SystemExit as error:
            ended.append(error)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    side = service.attached()
    side.send(request(1, b"x"))
    thread.join(LIMIT_S)
    assert [str(error) for error in ended] == ["told to"]


def test_the_request_is_shown_to_the_handler_alone(service: Service) -> None:
    """Not to what runs after it in that thread."""

    def handle(_: bytes) -> bytes:
        seen = aetherless_client.current_request()
        assert seen == (seen.id, 0, 1, b"", "m", b"x", 1)
        assert seen.parts == (b"x",)
        return b"%d" % seen.id

    with serving(service, handle) as side:
        for number in range(1, 5):
            assert service.call(side, b"x", "m").data == b"%d" % number
