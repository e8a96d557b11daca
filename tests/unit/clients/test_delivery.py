# SPDX-License-Identifier: Apache-2.0
"""Stages that die, edges that are dropped, damaged or given on; chains of clients."""

from __future__ import annotations

import os
import signal
from contextlib import ExitStack
from itertools import pairwise, product
from typing import TYPE_CHECKING

import pytest

from aetherless_ring.layout import RecordType
from framework.channel_edges import Carried, Edge, declare, settle
from framework.channel_peers import STAGES, running
from framework.channel_service import Answer, Service, let_go, request
from framework.processes import wait_until

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Iterator
    from pathlib import Path

    from framework.channel_service import Attachment

CALL = 6
PASSED_ON = 8
EDGE_DAMAGED = 9
KILLS = 5
Peer = tuple["Attachment", "subprocess.Popen[str]"]


@pytest.fixture(params=STAGES)
def language(request: pytest.FixtureRequest) -> str:
    """Return each language that has stages."""
    return str(request.param)


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    """Return what ends the peers, services and edges of a test."""
    with ExitStack() as made:
        yield made


class World:
    """Peers that come to services of their own."""

    def __init__(self, folder: Path, stack: ExitStack) -> None:
        self.folder = folder
        self.stack = stack
        self.count = 0

    def peer(self, language: str) -> Peer:
        """Run one more peer; return its attachment and its process."""
        self.count += 1
        path = self.folder / f"side{self.count}.sock"
        service = self.stack.enter_context(Service(path))
        command = running(language, "serve", AETHER_CHANNEL=str(path))
        process = self.stack.enter_context(command)
        return service.attached(), process

    def edge(self, name: str, number: int = 1) -> Edge:
        """Make an edge's region."""
        return self.stack.enter_context(Edge(name, number))


@pytest.fixture
def world(tmp_path: Path, stack: ExitStack) -> World:
    """Return a place for peers."""
    return World(tmp_path, stack)


def killed(process: subprocess.Popen[str]) -> None:
    """End a peer as a kill -9 does."""
    assert process.pid > 1
    os.kill(process.pid, signal.SIGKILL)
    process.wait(20)


def last(side: Attachment, **fields: object) -> None:
    """Make a client the last stage of p, with one input."""
    declare(side, "p/b", number=1, inputs=1, **fields)  # type: ignore[arg-type]  # its own


def at_work(side: Attachment) -> Carried:
    """Wait until a handler makes a call, which nobody answers; it is at work for long now."""
    kind, payload = side.receive()
    assert kind == CALL
    return Carried.parse(payload)


def test_at_least_once(world: World, language: str) -> None:
    """A record that was at work is given to the next process again, with a higher attempt."""
    side, process = world.peer(language)
    last(side, method="relay")
    into = world.edge("p/a/b")
    into.feed(side)
    into.put(1, b"other x")
    into.put(2, b"other y")
    assert at_work(side).data == b"x"
    assert into.consumed() == 0
    killed(process)
    again, _ = world.peer(language)
    last(again, method="describe")
    into.feed(again, generation=2, seen=64)
    assert again.answer() == Answer(1, 0, b"2 ", stage=2)
    assert again.answer() == Answer(2, 0, b"1 ", stage=2)
    into.wait_consumed()


def test_at_most_once(world: World, language: str) -> None:
    """A record is let go of before it is handled; its run is noted meanwhile."""
    side, process = world.peer(language)
    last(side, method="echo", delivery="at-most-once")
    into = world.edge("p/a/b")
    into.feed(side)
    into.put(1, b"other x")
    assert side.answer() == Answer(1, 0, b"other x", stage=2)
    wait_until(lambda: not into.runs(), "the slot is free")
    last(side, method="relay", delivery="at-most-once")
    settle(side)
    into.put(7, b"other x")
    at_work(side)
    assert into.runs() == {7}
    assert into.consumed() == into.produced()
    killed(process)
    assert into.runs() == {7}
    again, _ = world.peer(language)
    last(again, method="describe", delivery="at-most-once")
    into.feed(again, generation=2, seen=into.produced())
    into.put(8)
    assert again.answer() == Answer(8, 0, b"1 ", stage=2)


def test_parts_wait_in_their_ring(world: World, language: str) -> None:
    """What waits for other parts is the next process's after a death."""
    side, process = world.peer(language)
    parts = [world.edge(f"p/{name}/z") for name in "ab"]
    declare(side, "p/z", number=2, inputs=2, method="parts")
    for place, into in enumerate(parts):
        into.feed(side, place=place)
    parts[0].put(1, b"waits")
    parts[0].put(2, b"two")
    parts[1].put(2, b"zwei")
    assert side.answer() == Answer(2, 0, b"1 two|zwei", stage=3)
    parts[1].wait_consumed()
    assert parts[0].consumed() == 0
    killed(process)
    again, _ = world.peer(language)
    declare(again, "p/z", number=2, inputs=2, method="parts")
    for place, into in enumerate(parts):
        into.feed(again, generation=2, place=place, seen=into.produced())
    parts[1].put(1, b"eins")
    assert again.answer() == Answer(1, 0, b"2 waits|eins", stage=3)


def test_a_ring_is_resumed_anywhere(world: World, language: str) -> None:
    """After many laps, skips and sequences, by one process after another."""
    into = world.edge("p/a/b")
    run = 0
    for generation in range(1, 4):
        side, process = world.peer(language)
        last(side)
        into.feed(side, generation=generation, seen=into.produced())
        for _ in range(40):
            run += 1
            into.put(run, bytes([run % 256]) * (run * 397 % 9000))
            answer = side.answer()
            assert (answer.request_id, len(answer.data)) == (run, run * 397 % 9000)
        into.wait_consumed()
        killed(process)


def test_kills_lose_nothing(world: World, language: str) -> None:
    """Processes that are killed at any moment: each run comes out at least once, in order."""
    into = world.edge("p/a/b")
    count, put = 400, 0
    came: list[int] = []
    for generation in range(1, KILLS + 2):
        side, process = world.peer(language)
        declare(side, "p/b", number=1, inputs=1, outputs=1)
        out = world.edge("p/b/c", generation)
        into.feed(side, generation=generation, seen=into.produced())
        out.drain(side)
        last_of_all = generation > KILLS
        target = count if last_of_all else generation * count // (KILLS + 1)
        while not came or came[-1] < target:
            while put < count and into.producer.wait(600, 0):
                put += 1
                into.put(put, bytes(500))
            came.append(out.take().run)
        if not last_of_all:
            killed(process)
            came += [Carried.parse(payload).run for _, payload in out.consumer.receive_many(count)]
    assert set(came) == set(range(1, count + 1))
    assert all(after <= before + 1 for before, after in pairwise(came))
    into.wait_consumed()


def test_dropped_edges_are_let_go_of(world: World, language: str) -> None:
    """What was taken is finished; the consumer says that it let go; the stage goes on."""
    side, process = world.peer(language)
    declare(side, "p/b", number=1, inputs=1, outputs=1)
    into, out = world.edge("p/a/b"), world.edge("p/b/c", 2)
    into.feed(side, generation=5)
    out.drain(side)
    into.put(1, b"x")
    assert out.take().data == b"x"
    into.wait_consumed()
    into.drop(side, "consumer")
    wait_until(lambda: into.let_go() == 5, "the consumer let go")
    let_go(process.pid, "aether-test-edge-1")
    out.drop(side, "producer")
    let_go(process.pid, "aether-test-edge-2")
    settle(side)
    assert into.consumed() == into.produced()


def test_a_stage_that_is_dropped(world: World, language: str) -> None:
    """All of its edges go with it."""
    side, process = world.peer(language)
    declare(side, "p/b", number=1, inputs=1, outputs=1)
    into, out = world.edge("p/a/b"), world.edge("p/b/c")
    into.feed(side, generation=3)
    out.drain(side)
    settle(side)
    side.control.send(b"stage-drop pipeline=p stage=b")
    let_go(process.pid, "aether-test-edge")
    assert into.let_go() == 3


def test_the_end_of_the_attachment(world: World, language: str) -> None:
    """Everything is let go of; a new attachment is told of its edges anew."""
    path = world.folder / "anew.sock"
    service = world.stack.enter_context(Service(path))
    process = world.stack.enter_context(running(language, "serve", AETHER_CHANNEL=str(path)))
    into = world.edge("p/a/b")
    for turn in range(1, 4):
        side = service.attached()
        last(side)
        into.feed(side, generation=turn, seen=into.produced())
        into.put(turn, b"x")
        assert side.answer() == Answer(turn, 0, b"x", stage=2)
        into.wait_consumed()
        service.refuse()
        side.end()
        let_go(process.pid)
        service.listen()


def test_several_regions_of_an_edge(world: World, language: str) -> None:
    """All are read; the newest is written to."""
    side, _ = world.peer(language)
    declare(side, "p/b", number=1, inputs=1, outputs=1)
    inputs = [world.edge("p/a/b", number) for number in (1, 2)]
    outs = [world.edge("p/b/c", number) for number in (1, 3)]
    for each in inputs:
        each.feed(side)
    for each in outs[::-1]:
        each.drain(side)
    for run, each in enumerate([*inputs, *inputs]):
        each.put(run)
        assert outs[1].take().run == run
    assert outs[0].produced() == 0


def test_a_region_that_was_closed(world: World, language: str) -> None:
    """The service marks it; the client neither hangs nor looks at it for ever."""
    side, _ = world.peer(language)
    last(side)
    into = world.edge("p/a/b")
    into.feed(side)
    settle(side)
    into.close()
    settle(side)
    other = world.edge("p/a/b", 2)
    other.feed(side)
    other.put(1, b"x")
    assert side.answer() == Answer(1, 0, b"x", stage=2)


def test_damage_is_told(world: World, language: str) -> None:
    """A record that is not as its producer wrote it; an index that can't be."""
    side, _ = world.peer(language)
    last(side)
    into = world.edge("p/a/b")
    into.feed(side)
    into.put(1, b"x")
    assert side.answer() == Answer(1, 0, b"x", stage=2)
    into.wait_consumed()
    into.forge(length=20)
    assert side.answer() == Answer(0, EDGE_DAMAGED, b"p/a/b")
    anew = world.edge("p/a/b", 2)
    anew.set_produced(64 + 1)
    anew.feed(side)
    assert side.answer() == Answer(0, EDGE_DAMAGED, b"p/a/b")
    third = world.edge("p/a/b", 3)
    third.feed(side)
    third.put(3, b"y")
    assert side.answer() == Answer(3, 0, b"y", stage=2)


def test_a_damaged_output_is_told(world: World, language: str) -> None:
    """Its consumer wrote what can't be: the record goes to the region that replaces it."""
    side, _ = world.peer(language)
    declare(side, "p/a", outputs=1)
    out = world.edge("p/a/b")
    out.drain(side)
    settle(side)
    out.set_consumed(1)
    data = bytes(15000)
    for run in range(1, 6):
        side.send(request(run, data, method="p/a"))
    answers = [side.answer() for _ in range(5)]
    damage = Answer(0, EDGE_DAMAGED, b"p/a/b")
    assert damage in answers
    assert all(answer == damage or answer.status == PASSED_ON for answer in answers)
    anew = world.edge("p/a/b", 2)
    anew.drain(side)
    assert anew.take().data == data
    assert side.answer().status == PASSED_ON


@pytest.mark.parametrize(("first", "second"), [*product(STAGES, STAGES)])
def test_chains_of_clients(world: World, first: str, second: str) -> None:
    """Records of all sizes, past the end of the edge's ring many times; both sides sleep."""
    one, _ = world.peer(first)
    two, _ = world.peer(second)
    declare(one, "p/a", outputs=1)
    declare(two, "p/b", number=1, inputs=1)
    between = world.edge("p/a/b")
    between.drain(one)
    between.feed(two)
    for start in range(1, 400, 4):
        runs = range(start, start + 4)
        for run in runs:
            one.send(request(run, bytes([run % 256]) * (run * 7919 % 3000), method="p/a"))
        for run in runs:
            assert one.answer() == Answer(run, PASSED_ON, b"", stage=1)
            expected = bytes([run % 256]) * (run * 7919 % 3000)
            assert two.answer() == Answer(run, 0, expected, stage=2)
    between.wait_consumed()


def test_ping_while_an_edge_is_full(world: World, language: str) -> None:
    """A stage that waits for room is not deaf for ever: once there is room, it answers."""
    side, _ = world.peer(language)
    declare(side, "p/a", outputs=1)
    out = world.edge("p/a/b")
    out.drain(side)
    for run in range(6):
        side.send(request(run, bytes(15000), method="p/a"))
        if run < 4:
            assert side.answer().status == PASSED_ON
    side.send(b"there?", RecordType.PING)
    for run in range(6):
        assert out.take().run == run
    assert [side.receive()[0] for _ in range(3)].count(RecordType.PONG) == 1
