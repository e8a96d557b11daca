# SPDX-License-Identifier: Apache-2.0
"""Each client is a stage of pipelines: one input or several, any number of outputs."""

from __future__ import annotations

import time
from contextlib import ExitStack
from typing import TYPE_CHECKING

import pytest

from framework.channel_edges import OVER, Edge, declare, say, settle
from framework.channel_peers import STAGES, running
from framework.channel_service import LIMIT_S, Answer, Service, let_go, request
from framework.processes import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from framework.channel_service import Attachment

TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
PASSED_ON = 8
Served = tuple[Service, "subprocess.Popen[str]"]


@pytest.fixture(params=STAGES)
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Served]:
    """Return a service, and the peer that will come to it."""
    path = tmp_path / "side.sock"
    with Service(path) as made, running(request.param, "serve", AETHER_CHANNEL=str(path)) as peer:
        yield made, peer


@pytest.fixture
def edges() -> Iterator[ExitStack]:
    """Return what closes the edges of a test."""
    with ExitStack() as stack:
        yield stack


def middle(side: Attachment, edges: ExitStack, **fields: object) -> tuple[Edge, Edge]:
    """Make a client the stage b of p, between a and c; return its input and its output."""
    declare(side, "p/b", number=1, inputs=1, outputs=1, **fields)  # type: ignore[arg-type]  # its own
    into, out = (edges.enter_context(Edge(name)) for name in ("p/a/b", "p/b/c"))
    into.feed(side)
    out.drain(side)
    return into, out


def test_the_first_stage(served: Served, edges: ExitStack) -> None:
    """Its records come on the channel; it says that it passed them on."""
    side = served[0].attached()
    out = edges.enter_context(Edge("p/a/b"))
    declare(side, "p/a", outputs=1)
    out.drain(side)
    deadline = time.time_ns() + int(LIMIT_S * 1e9)
    side.send(request(9, b"data", method="p/a", attempt=2, trace=TRACE, deadline_ns=deadline))
    record = out.take()
    assert (record.run, record.deadline_ns, record.attempt) == (9, deadline, 2)
    assert (record.trace, record.method, record.data) == (TRACE, "p/b", b"data")
    assert side.answer() == Answer(9, PASSED_ON, b"", stage=1)


def test_a_stage_between(served: Served, edges: ExitStack) -> None:
    """Each record is handed on and let go of; nothing is said on the channel."""
    side = served[0].attached()
    into, out = middle(side, edges)
    for run in range(1, 300):
        into.put(run, b"%d" % run * (run % 50), trace=TRACE)
        record = out.take()
        assert (record.run, record.data) == (run, b"%d" % run * (run % 50))
        assert (record.method, record.trace, record.attempt) == ("p/c", TRACE, 1)
    into.wait_consumed()
    assert served[0].call(side, b"and a call").data == b"and a call"


def test_a_stage_beside_a_hostile_one(served: Served, edges: ExitStack) -> None:
    """The stage after it fills the bell, and takes O_NONBLOCK away: nobody waits for that."""
    side = served[0].attached()
    into, out = middle(side, edges)
    for run in range(1, 4):
        out.stop_the_bell()
        into.put(run, b"data")
        wait_until(lambda: out.produced() > out.consumed(), "it is handed on")
        into.wait_consumed()
        assert out.consumer.receive()[1].endswith(b"data")
    assert served[0].call(side, b"and a call").data == b"and a call"


def test_the_last_stage(served: Served, edges: ExitStack) -> None:
    """It answers on the channel, by the stage's own method."""
    side = served[0].attached()
    declare(side, "p/c", number=2, inputs=1, method="describe")
    into = edges.enter_context(Edge("p/b/c"))
    into.feed(side)
    into.put(5, trace=TRACE, attempt=4)
    assert side.answer() == Answer(5, 0, b"4 " + TRACE, stage=3)
    into.wait_consumed()


def test_the_only_stage(served: Served) -> None:
    """First and last at once."""
    side = served[0].attached()
    declare(side, "p/a")
    side.send(request(1, b"x", method="p/a"))
    assert side.answer() == Answer(1, 0, b"x", stage=1)


def test_fan_out(served: Served, edges: ExitStack) -> None:
    """The result goes to every output."""
    side = served[0].attached()
    declare(side, "p/a", outputs=3)
    outs = [edges.enter_context(Edge(f"p/a/{name}")) for name in "bcd"]
    for out in outs:
        out.drain(side)
    for run in (1, 2):
        side.send(request(run, b"x%d" % run, method="p/a"))
        for name, out in zip("bcd", outs, strict=True):
            record = out.take()
            assert (record.run, record.data, record.method) == (run, b"x%d" % run, f"p/{name}")
        assert side.answer() == Answer(run, PASSED_ON, b"", stage=1)


def gathering(side: Attachment, edges: ExitStack) -> list[Edge]:
    """Make a client the last stage, with three inputs; return them in order."""
    declare(side, "p/z", number=4, inputs=3, method="parts")
    inputs = [edges.enter_context(Edge(f"p/{name}/z")) for name in "bcd"]
    for place, into in enumerate(inputs):
        into.feed(side, place=place)
    return inputs


def test_fan_in(served: Served, edges: ExitStack) -> None:
    """One answer for a record of each input, in order; repetitions are let go of."""
    side = served[0].attached()
    first, second, third = gathering(side, edges)
    third.put(1, b"three", attempt=5)
    second.put(2, b"2-two")
    third.put(2, b"2-three")
    third.put(2, b"again")
    first.put(2, b"")
    assert side.answer() == Answer(2, 0, b"1 |2-two|2-three", stage=5)
    first.put(2, b"of a run that is over")
    second.put(1, b"two")
    first.put(1, b"one")
    assert side.answer() == Answer(1, 0, b"5 one|two|three", stage=5)
    for each in (first, second, third):
        each.wait_consumed()


def test_parts_of_a_run_that_is_over_are_let_go_of(served: Served, edges: ExitStack) -> None:
    """Told by the service, or by their deadline."""
    side = served[0].attached()
    first, second, third = gathering(side, edges)
    first.put(1, b"never")
    second.put(1, b"never")
    third.put(2, b"late", deadline_ns=time.time_ns() + int(3e8))
    side.send((1).to_bytes(8, "little"), OVER)
    for each in (first, second, third):
        each.wait_consumed()
    third.put(1, b"never")
    for each in (first, second, third):
        each.put(3, b"x")
    assert side.answer() == Answer(3, 0, b"1 x|x|x", stage=5)
    third.wait_consumed()


def test_failures_end_the_run(served: Served, edges: ExitStack) -> None:
    """They are said on the channel, with the stage; nothing is handed on."""
    side = served[0].attached()
    into, out = middle(side, edges, method="fail")
    into.put(1, b"x")
    failed = side.answer()
    assert (failed.request_id, failed.status, failed.stage) == (1, 1, 2)
    assert b"told to fail" in failed.data
    declare(side, "p/b", number=1, inputs=1, outputs=1, method="nothing")
    settle(side)
    into.put(2, b"x")
    assert side.answer() == Answer(2, 2, b"", stage=2)
    into.put(3, b"x", deadline_ns=1)
    assert side.answer() == Answer(3, 3, b"", stage=2)
    declare(side, "p/b", number=1, inputs=1, outputs=1, method="grow")
    settle(side)
    into.put(4, b"%d" % out.layout.largest_payload)
    large = side.answer()
    assert (large.request_id, large.status, large.stage) == (4, 1, 2)
    into.wait_consumed()
    assert out.produced() == 0


def test_back_pressure(served: Served, edges: ExitStack) -> None:
    """A full output is waited for; the input fills up behind it; a deadline ends the waiting."""
    side = served[0].attached()
    into, out = middle(side, edges)
    count = 20
    for run in range(1, count + 1):
        into.put(run, bytes([run]) * 6000)
        if run == 12:
            assert out.produced() <= out.layout.ring_bytes
            assert out.take().run == 1
    for run in range(2, count + 1):
        assert (record := out.take()).data == bytes([run]) * 6000
        assert record.run == run
    for run in range(101, 111):
        into.put(run, bytes(6000))
    into.put(200, bytes(6000), deadline_ns=time.time_ns() + int(3e8))
    late = side.answer()
    assert late == Answer(200, 3, b"", stage=2)


@pytest.mark.parametrize("method", ["p/x", "q/a", "a/b/c"])
def test_what_is_no_stage_of_ours(served: Served, method: str) -> None:
    """It is said that there is no such method."""
    side = served[0].attached()
    declare(side, "p/a")
    side.send(request(1, b"x", method=method))
    assert side.answer() == Answer(1, 2, b"")


def test_strangers_on_the_side_socket(served: Served, edges: ExitStack) -> None:
    """Words, fields and edges that are not known are passed over, their descriptors closed."""
    service, peer = served
    side = service.attached()
    stranger = edges.enter_context(Edge("p/x/y"))
    stranger.feed(side)
    say(side, "weather", stranger.region.descriptor, sky="blue")
    say(side, "edge-drop", name="p/x/y", role="consumer", region=7)
    say(side, "stage-drop", pipeline="p", stage="nobody")
    say(side, "stage", pipeline="p", stage="a", number=0, inputs=0, outputs=0, colour="red")
    side.send(request(1, b"x", method="p/a"))
    assert side.answer() == Answer(1, 0, b"x", stage=1)
    let_go(peer.pid, "aether-test-edge")
