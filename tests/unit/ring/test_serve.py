# SPDX-License-Identifier: Apache-2.0
"""The extension's server: what it handles, and what it leaves to its caller."""

from __future__ import annotations

import os
import struct
import time
from typing import TYPE_CHECKING, Any

import pytest
from unit.ring.rings import LAYOUT, RING
from unit.ring.serving import HEAR, LOOK, Bench, Shown, request

from aetherless_ring import _native
from aetherless_ring.layout import ControlField, HeaderField, RecordType

if TYPE_CHECKING:
    from collections.abc import Iterator

PASSED_ON = 8
SLOTS_OFFSET = 512


@pytest.fixture
def bench() -> Iterator[Bench]:
    """Return a bench whose handler turns the data round."""
    made = Bench(lambda data: data[::-1])
    yield made
    made.close()


def test_a_call_is_answered(bench: Bench) -> None:
    """With the request shown; then there is something to hear."""
    bench.calls.publish(request(7, b"abc", b"m\xff", trace=b"tr"), RecordType.REQUEST)
    assert bench.server.serve(0.0) == HEAR
    assert bench.answer() == (7, 0, 0, b"cba")
    assert bench.shown[0] == Shown(7, 0, 1, b"tr", "m\ufffd", b"abc", 1)
    assert bench.server.at_work() is None


def test_a_first_stage_passes_on(bench: Bench) -> None:
    """The result is the next stage's request, with all that came with it; then it says so."""
    deadline = time.time_ns() + 10**12
    bench.calls.publish(request(3, b"ab", b"p/a", deadline, b"trace"), RecordType.REQUEST)
    assert bench.server.serve(0.0) == HEAR
    expected = request(3, b"ba", b"p/b", deadline, b"trace")
    assert bench.out.receive() == (RecordType.REQUEST, expected)
    assert bench.answer() == (3, PASSED_ON, 1, b"")


def test_an_edges_record_is_held_until_its_result_is_out(bench: Bench) -> None:
    """Many of them, past the end of the ring; sizes with memory of their own among them."""
    for run in range(1, 200):
        data = bytes([run]) * (run * 397 % 9000)
        bench.into.publish(request(run, data, b"p/a"), RecordType.REQUEST)
        assert bench.server.serve(0.0) == HEAR
        assert bench.out.receive()[1] == request(run, data, b"p/b")
        assert bench.word(1, ControlField.CONSUMED) == bench.word(1, ControlField.PRODUCED)


def test_the_last_stage_answers(bench: Bench) -> None:
    """By its number."""
    bench.calls.publish(request(5, b"xy", b"p/z"), RecordType.REQUEST)
    assert bench.server.serve(0.0) == HEAR
    assert bench.answer() == (5, 0, 9, b"yx")


@pytest.mark.parametrize(
    ("payload", "kind"),
    [
        (request(1, b"x", deadline=1), RecordType.REQUEST),
        (request(1, b"x", b"p/x"), RecordType.REQUEST),
        (request(1, b"x", b"nobody"), RecordType.REQUEST),
        (b"short", RecordType.REQUEST),
        (struct.pack("<QQIHH", 1, 0, 1, 9, 9), RecordType.REQUEST),
        (request(1, b"x"), RecordType.RESPONSE),
        (b"there?", RecordType.PING),
    ],
)
def test_what_is_unusual_stays_where_it_is(bench: Bench, payload: bytes, kind: RecordType) -> None:
    """The caller takes it."""
    bench.calls.publish(payload, kind)
    assert bench.server.serve(0.0) == LOOK
    assert bench.sources[0].receive() == (kind, payload)
    assert not bench.shown


def test_nothing_is_taken_while_threads_wait(bench: Bench) -> None:
    """They want to lead."""
    bench.sleepers.append("a thread")
    bench.calls.publish(request(1, b"x"), RecordType.REQUEST)
    assert bench.server.serve(0.0) == LOOK
    bench.sleepers.clear()
    assert bench.server.serve(0.0) == HEAR
    assert bench.answer()[0] == 1


def test_a_record_behind_a_held_one_is_left(bench: Bench) -> None:
    """Places are given back in order."""
    for run in (1, 2):
        bench.into.publish(request(run, b"x"), RecordType.REQUEST)
    _, _, end = bench.sources[1].hold()
    assert bench.server.serve(0.0) == LOOK
    bench.sources[1].release(end)
    assert bench.server.serve(0.0) == HEAR
    assert bench.out.receive()[1] == request(2, b"x", b"p/b")


def test_a_failure_is_the_callers() -> None:
    """With its traceback; the record is not given back."""

    def fail(_: bytes) -> bytes:
        raise KeyError("told to")

    bench = Bench(fail)
    bench.into.publish(request(4, b"x"), RecordType.REQUEST)
    shown, owner, error, failed = bench.server.serve(0.0)  # type: ignore[misc]  # a tuple
    assert (shown.id, owner, failed, error.args) == (4, "first", True, ("told to",))
    assert error.__traceback__.tb_frame.f_code.co_name == "fail"
    assert bench.server.at_work() == (1, shown, 64, None)
    assert bench.word(1, ControlField.CONSUMED) == 0
    with pytest.raises(RuntimeError):
        bench.server.serve(0.0)
    bench.server.done()
    assert bench.server.serve(0.0) == HEAR
    bench.close()


@pytest.mark.parametrize("result", [bytearray(b"x"), "text", None, bytes(RING)])
def test_a_result_that_does_not_go_at_once_is_the_callers(result: object) -> None:
    """It is no bytes, or does not fit."""
    bench = Bench(lambda _: result)
    bench.calls.publish(request(4, b"x"), RecordType.REQUEST)
    shown, owner, given, failed = bench.server.serve(0.0)  # type: ignore[misc]  # a tuple
    assert (shown.id, owner, failed) == (4, None, False)
    assert given is result
    assert bench.server.at_work() == (0, shown, 64, None)
    bench.close()


def test_at_most_once() -> None:
    """The run is in a slot and the place given back while the handler works."""
    seen = []

    def note(data: bytes) -> bytes:
        seen.append([made.word(1, each) for each in (SLOTS_OFFSET + 16, ControlField.CONSUMED)])
        return data

    slots = [5, 2]
    made = Bench(note, slots)
    made.into.publish(request(77, b"x"), RecordType.REQUEST)
    assert made.server.serve(0.0) == HEAR
    assert seen == [[77, 64]]
    assert made.word(1, SLOTS_OFFSET + 16) == 0
    assert slots == [5, 2]
    slots.clear()
    made.into.publish(request(78, b"x"), RecordType.REQUEST)
    assert made.server.serve(0.0) == LOOK
    made.close()


def test_the_lead_is_lent_while_a_handler_works() -> None:
    """Who takes it has the result left to the caller; so does who stops the server."""
    made = Bench(lambda data: data if made.server.take_lead() else b"it was not lent")
    made.into.publish(request(1, b"x"), RecordType.REQUEST)
    assert not made.server.is_lent()
    assert not made.server.take_lead()
    assert made.server.serve(0.0)[1:] == ("first", b"x", False)  # type: ignore[index]  # a tuple
    made.server.done()
    made.close()
    made = Bench(lambda data: made.server.stop() or data)  # type: ignore[func-returns-value]
    made.calls.publish(request(1, b"x"), RecordType.REQUEST)
    assert made.server.serve(0.0)[2:] == (b"x", False)  # type: ignore[index]  # a tuple
    made.close()


def test_a_full_edge_is_the_callers_to_wait_for(bench: Bench) -> None:
    """Nothing is published then."""
    size = LAYOUT.largest_payload - 100
    for run in range(4):
        bench.into.publish(request(run, bytes(size)), RecordType.REQUEST)
        if run < 3:
            assert bench.server.serve(0.0) == HEAR
    while not isinstance(bench.server.serve(0.0), tuple):
        bench.into.publish(request(9, bytes(size)), RecordType.REQUEST)
    assert bench.server.at_work() is not None


def test_it_sleeps_until_a_bell_rings(bench: Bench) -> None:
    """Spinning first, and hears what is no bell; both in the caller's time."""
    os.eventfd_read(bench.news)
    began = time.monotonic()
    assert bench.server.serve(0.001) == HEAR  # after the longest sleep
    assert time.monotonic() - began >= 0.9
    os.eventfd_write(bench.news, 1)
    assert bench.server.serve(0.0) == HEAR


def test_a_closed_region_is_the_callers(bench: Bench) -> None:
    """However it waits."""
    struct.pack_into("@I", bench.memory[1], HeaderField.CLOSED, 1)
    assert bench.server.serve(0.001) == LOOK
    assert bench.server.serve(0.0) == LOOK


def test_what_it_is_made_of_is_checked(bench: Bench) -> None:
    """Ends that were made, of the right kind; a kind of tuple; ways that are there."""
    made: dict[str, Any] = {
        "reply": bench.into, "sources": ((bench.out, 0, 0, None, -1),), "ways": (), "poll": -1,
        "request_type": Shown, "show": print, "unshow": print, "find": print, "handler": None,
        "sleepers": (), "hand_on": print,
    }  # fmt: skip
    _native.Server(**made)
    for wrong in (
        {"reply": bench.out},
        {"reply": _native.Producer.__new__(_native.Producer)},
        {"sources": ()},
        {"sources": ((bench.into, 0, 0, None, -1),)},
        {"sources": ((bench.out, 0, 0, None, 0),)},
        {"sources": ((bench.out, 0, 0, (), -1),)},
        {"ways": ((b"", None, "", 1, ((bench.out, b""),)),)},
        {"ways": ((b"", None, "", 1, ((bench.into, bytes(70000)),)),)},
        {"request_type": list},
    ):
        with pytest.raises(TypeError):
            _native.Server(**{**made, **wrong})
    with pytest.raises(RuntimeError):
        _native.Server.__new__(_native.Server).serve(0.0)
