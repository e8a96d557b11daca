# SPDX-License-Identifier: Apache-2.0
"""A model of the two sides of a ring, run through every interleaving.

Two processors with store buffers, as x86 has them (P. Sewell et al., "x86-TSO", 2010): a store goes
to the processor's own buffer and reaches memory later, in order; a load sees its own buffer first.
A fence or an exchange waits until the buffer is empty. Each side is a small program of the steps of
``native/ring.h`` and ``waiting.h``. The ring of the model holds SLOTS records, each a single word.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, NamedTuple

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

SLOTS = 2
PRODUCED, CONSUMED, PRODUCER_ASLEEP, CONSUMER_ASLEEP, DATA = range(5)
WORDS = DATA + SLOTS

Registers = tuple[int, ...]


class Side(NamedTuple):
    """Where a side is: next step, registers, buffered stores, the word it sleeps on or -1."""

    step: int
    registers: Registers
    buffer: tuple[tuple[int, int], ...]
    bed: int = -1


class State(NamedTuple):
    """All of the machine."""

    memory: tuple[int, ...]
    sides: tuple[Side, Side]


class WrongError(AssertionError):
    """A state that must not be was reached."""


@dataclass(frozen=True)
class Step:
    """One atomic step of a side; ``run`` yields what it may lead to."""

    run: Callable[[tuple[int, ...], Side], Iterator[tuple[tuple[int, ...], Side, int]]]


def put(values: tuple[int, ...], place: int, value: int) -> tuple[int, ...]:
    """Return the tuple with one value changed."""
    return (*values[:place], value, *values[place + 1 :])


def seen(memory: tuple[int, ...], side: Side, address: int) -> int:
    """Return what a side reads: its newest buffered store, else memory."""
    for place, value in reversed(side.buffer):
        if place == address:
            return value
    return memory[address]


def go(side: Side, to: int | None = None, registers: Registers | None = None) -> Side:
    """Return the side at its next step, or at another."""
    step = side.step + 1 if to is None else to
    return side._replace(step=step, registers=side.registers if registers is None else registers)


def load(register: int, address: Callable[[Registers], int]) -> Step:
    """Read a word into a register."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        value = seen(memory, side, address(side.registers))
        yield memory, go(side, registers=put(side.registers, register, value)), -1

    return Step(run)


def store(address: Callable[[Registers], int], value: Callable[[Registers], int]) -> Step:
    """Write a word, by way of the buffer."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        written = (*side.buffer, (address(side.registers), value(side.registers)))
        yield memory, go(side)._replace(buffer=written), -1

    return Step(run)


def fence() -> Step:
    """Go on once the buffer is empty."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        if not side.buffer:
            yield memory, go(side), -1

    return Step(run)


def nothing() -> Step:
    """Do nothing: what is left of a fence that is taken away."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        yield memory, go(side), -1

    return Step(run)


def compute(change: Callable[[Registers], Registers]) -> Step:
    """Change registers."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        yield memory, go(side, registers=change(side.registers)), -1

    return Step(run)


def jump(condition: Callable[[Registers], bool], to: int) -> Step:
    """Go to another step if a condition holds."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        yield memory, go(side, to if condition(side.registers) else None), -1

    return Step(run)


def wake(bed: int) -> Step:
    """Set how the other side sleeps to 0, in one piece with all stores before it, and wake it."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        if not side.buffer:
            yield put(memory, bed, 0), go(side), bed if memory[bed] else -1

    return Step(run)


def sleep(bed: int) -> Step:
    """Sleep on a futex if the word is still 1; the kernel looks at memory."""

    def run(memory: tuple[int, ...], side: Side) -> Iterator[tuple[tuple[int, ...], Side, int]]:
        if not side.buffer:  # the system call
            asleep = memory[bed] == 1
            yield memory, go(side)._replace(bed=bed if asleep else -1), -1

    return Step(run)


def successors(programs: tuple[list[Step], list[Step]], state: State) -> Iterator[State]:
    """Yield every state that one step of one side, or of its buffer, leads to."""
    for number, side in enumerate(state.sides):
        if side.buffer:
            address, value = side.buffer[0]
            flushed = side._replace(buffer=side.buffer[1:])
            yield State(put(state.memory, address, value), _with(state.sides, number, flushed))
        if side.bed >= 0 or side.step >= len(programs[number]):
            continue
        for memory, after, woken in programs[number][side.step].run(state.memory, side):
            sides = _with(state.sides, number, after)
            other = sides[1 - number]
            if woken >= 0 and other.bed == woken:
                sides = _with(sides, 1 - number, other._replace(bed=-1))
            yield State(memory, sides)


def _with(sides: tuple[Side, Side], number: int, side: Side) -> tuple[Side, Side]:
    return (side, sides[1]) if number == 0 else (sides[0], side)


def explore(programs: tuple[list[Step], list[Step]], registers: tuple[Registers, Registers]) -> int:
    """Go through every state; return their number.

    Raises:
        WrongError: nobody can go on and not everybody is at the end, or a step found a wrong value.
    """
    sides = tuple(Side(0, each, ()) for each in registers)
    start = State((0,) * WORDS, (sides[0], sides[1]))
    known, open_states = {start}, [start]
    while open_states:
        state = open_states.pop()
        following = list(successors(programs, state))
        ended = all(s.step >= len(p) for s, p in zip(state.sides, programs, strict=True))
        if not following and not ended:
            raise WrongError(f"nobody can go on: {state}")
        for after in following:
            if after not in known:
                known.add(after)
                open_states.append(after)
    return len(known)
