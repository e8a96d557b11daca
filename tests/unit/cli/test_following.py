# SPDX-License-Identifier: Apache-2.0
"""Streams that a thread reads: their answers, their ends, and that they are not read too far."""

from __future__ import annotations

import itertools
import threading
from typing import TYPE_CHECKING

import pytest

from aetherless_cli.following import AHEAD, followed
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator


class Stream:
    """Counts for ever, unless it is cancelled or waits for that."""

    def __init__(self, *, waits: bool = False) -> None:
        self.read = 0
        self.cancelled = threading.Event()
        self._waits = waits

    def __iter__(self) -> Iterator[int]:
        for number in itertools.count():
            if self._waits:
                self.cancelled.wait(60)
            if self.cancelled.is_set():
                return
            self.read += 1
            yield number

    def cancel(self) -> None:
        """End it."""
        self.cancelled.set()


def test_answers_come_in_order_and_are_not_read_far_ahead() -> None:
    """Who takes them slowly has few of them kept."""
    stream = Stream()
    with followed(lambda: stream) as answers:
        wait_until(lambda: stream.read == AHEAD + 1, "it is read ahead")
        assert list(itertools.islice(answers, 1000)) == list(range(1000))
    assert stream.cancelled.is_set()
    assert stream.read <= 1000 + AHEAD + 1


def test_the_end_and_an_error_come_out_of_the_iteration() -> None:
    """After what was there before."""

    def fails() -> Iterator[int]:
        yield 1
        raise LookupError

    ended = Stream()
    ended.cancel()
    with followed(lambda: ended) as answers:
        assert list(answers) == []
    with pytest.raises(ZeroDivisionError), followed(lambda: 1 // 0) as answers:
        next(answers)
    told: list[int] = []
    failing = fails()
    with pytest.raises(LookupError), followed(lambda: Cancelling(failing)) as answers:
        told.extend(answers)
    assert told == [1]


class Cancelling:
    """An iterator that can be cancelled."""

    def __init__(self, answers: Iterator[int]) -> None:
        self._answers = answers

    def __iter__(self) -> Iterator[int]:
        return self._answers

    def cancel(self) -> None:
        """Do nothing."""


def test_one_that_waits_is_ended() -> None:
    """By the end of the block, with its thread."""
    stream = Stream(waits=True)
    before = threading.active_count()
    with followed(lambda: stream):
        wait_until(lambda: threading.active_count() == before + 1, "it is read")
    assert threading.active_count() == before
