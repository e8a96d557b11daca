# SPDX-License-Identifier: Apache-2.0
"""The protocol loses no wake, tears no record and overruns nobody, in any interleaving."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from unit.ring.model import (
    CONSUMED,
    CONSUMER_ASLEEP,
    DATA,
    PRODUCED,
    PRODUCER_ASLEEP,
    SLOTS,
    Step,
    WrongError,
    compute,
    explore,
    fence,
    jump,
    load,
    nothing,
    sleep,
    store,
    wake,
)

if TYPE_CHECKING:
    from unit.ring.model import Registers

RECORDS = 4
# Registers of both sides: own index, the other's as last seen, a word.
OWN, OTHER, WORD = range(3)
START: Registers = (0, 0, 0)


def is_full(registers: Registers) -> bool:
    """Whether the producer has no room."""
    return registers[OWN] - registers[OTHER] >= SLOTS


def is_empty(registers: Registers) -> bool:
    """Whether the consumer has no record."""
    return registers[OWN] == registers[OTHER]


def checked(registers: Registers) -> Registers:
    """Go past a record; it must be the next one, whole."""
    if registers[WORD] != registers[OWN] + 1:
        raise WrongError(f"record {registers[OWN]} is {registers[WORD]}")
    return (registers[OWN] + 1, registers[OTHER], 0)


def side(  # the parts of a side, once
    seen: int,
    bed: int,
    other_bed: int,
    shown: int,
    work: list[Step],
    *,
    blocked: object,
    fences: bool,
) -> list[Step]:
    """Return a side's program: wait until it is not blocked, work, show it, wake; RECORDS times."""
    barrier = fence if fences else nothing
    is_blocked = is_full if blocked == "full" else is_empty
    show = 9 + len(work)
    return [
        # 0: look, and look again after saying that it sleeps
        load(OTHER, lambda _: seen),
        jump(lambda r: not is_blocked(r), 9),
        store(lambda _: bed, lambda _: 1),
        barrier(),
        load(OTHER, lambda _: seen),
        jump(lambda r: not is_blocked(r), 7),
        sleep(bed),
        store(lambda _: bed, lambda _: 0),
        jump(lambda _: True, 0),
        # 9: one record
        *work,
        store(lambda _: shown, lambda r: r[OWN]),
        barrier(),
        load(WORD, lambda _: other_bed),
        jump(lambda r: r[WORD] == 0, show + 5),
        wake(other_bed),
        # show + 5: the next one
        compute(lambda r: (r[OWN], r[OTHER], 0)),
        jump(lambda r: r[OWN] < RECORDS, 0),
    ]


def producer(*, fences: bool = True) -> list[Step]:
    """Return the producer's program: record n is the word n + 1."""
    work = [
        store(lambda r: DATA + r[OWN] % SLOTS, lambda r: r[OWN] + 1),
        compute(lambda r: (r[OWN] + 1, r[OTHER], 0)),
    ]
    return side(
        CONSUMED, PRODUCER_ASLEEP, CONSUMER_ASLEEP, PRODUCED, work, blocked="full", fences=fences
    )


def consumer(*, fences: bool = True) -> list[Step]:
    """Return the consumer's program."""
    work = [load(WORD, lambda r: DATA + r[OWN] % SLOTS), compute(checked)]
    return side(
        PRODUCED, CONSUMER_ASLEEP, PRODUCER_ASLEEP, CONSUMED, work, blocked="empty", fences=fences
    )


def test_no_interleaving_goes_wrong() -> None:
    """Every state of both sides passing RECORDS records through SLOTS slots is fine."""
    assert explore((producer(), consumer()), (START, START)) > 10_000


@pytest.mark.parametrize("without", ["producer", "consumer"])
def test_without_a_fence_a_wake_is_lost(without: str) -> None:
    """The check can fail: one side without its fences, and both sleep for ever."""
    programs = (producer(fences=without != "producer"), consumer(fences=without != "consumer"))
    with pytest.raises(WrongError, match="nobody can go on"):
        explore(programs, (START, START))


def test_showing_a_record_before_it_is_whole_is_found() -> None:
    """The check can fail: an index stored before the record is, and a torn one is read."""
    program = producer()
    program[9], program[10], program[11] = (
        program[10],
        program[11],
        store(lambda r: DATA + (r[OWN] - 1) % SLOTS, lambda r: r[OWN]),
    )
    with pytest.raises(WrongError, match="record"):
        explore((program, consumer()), (START, START))
