# SPDX-License-Identifier: Apache-2.0
"""The state machine: its nine moves and no others, what it derives, and how it catches up."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, rule

from aetherless_registry.machine import (
    MOVES,
    Activity,
    FunctionMachine,
    FunctionState,
    InvalidTransition,
    derive,
    way,
)

if TYPE_CHECKING:
    from collections.abc import Callable

TESTDATA = Path(__file__).parent / "testdata"
U, W = FunctionState.UNINITIALIZED, FunctionState.WARM_SNAPSHOT
R, S = FunctionState.RUNNING, FunctionState.SUSPENDED
LETTERS = {"U": U, "W": W, "R": R, "S": S}
# As the design lists them; MOVES must be these.
DESIGNED = ("U>W", "U>R", "W>R", "W>U", "R>S", "R>W", "S>R", "S>W", "S>U")
PAIRS = list(itertools.product(FunctionState, repeat=2))


def become(machine: FunctionMachine, state: FunctionState) -> None:
    """Enter a state by its own method."""
    enter = {
        U: machine.become_uninitialized,
        W: machine.become_warm_snapshot,
        R: machine.become_running,
        S: machine.become_suspended,
    }
    enter[state]()


def show(machine: FunctionMachine) -> str:
    """Return a machine in one line."""
    counts = f"restorable={machine.restorable} running={machine.running} parked={machine.parked}"
    return f"{machine.state} {counts}"


class Player:
    """Runs the commands of a transcript."""

    def __init__(self) -> None:
        self.machine = FunctionMachine()

    def run(self, line: str) -> str:
        """Run ``new STATE``, ``become STATE`` or ``observe ACTIVITY...``."""
        command, *words = line.split()
        if command == "new":
            self.machine = FunctionMachine(FunctionState(words[0]))
            return show(self.machine)
        if command == "become":
            return self.become(FunctionState(words[0]))
        assert command == "observe"
        entered = self.machine.observe(Activity(word) for word in words)
        path = " ".join(f"-> {state}" for state in entered) or "stays"
        return f"{path}\n{show(self.machine)}"

    def become(self, state: FunctionState) -> str:
        """Enter a state, or say why not."""
        try:
            become(self.machine, state)
        except InvalidTransition as error:
            return f"INVALID_STATE_TRANSITION from={error.origin} to={error.target}"
        return show(self.machine)


@pytest.mark.parametrize("path", sorted(TESTDATA.glob("machine_*.txt")), ids=lambda p: p.stem)
def test_transcript(path: Path, transcript: Callable[..., None]) -> None:
    """The machine answers as it was reviewed."""
    transcript(path, Player().run)


def test_there_are_transcripts() -> None:
    """The test above ran at all."""
    assert list(TESTDATA.glob("machine_*.txt"))


def test_the_moves_are_the_designed_ones() -> None:
    """Nine, as listed."""
    listed = {(LETTERS[move[0]], LETTERS[move[-1]]) for move in DESIGNED}
    assert listed == MOVES
    assert len(MOVES) == 9


@pytest.mark.parametrize(("origin", "target"), PAIRS)
def test_become_allows_exactly_the_moves(origin: FunctionState, target: FunctionState) -> None:
    """A state is entered from where a move leads to it, and otherwise nothing changes."""
    machine = FunctionMachine(origin)
    if (origin, target) in MOVES:
        become(machine, target)
        assert machine.state is target
    else:
        with pytest.raises(InvalidTransition) as raised:
            become(machine, target)
        assert (raised.value.origin, raised.value.target) == (origin, target)
        assert machine.state is origin


@pytest.mark.parametrize(("origin", "target"), PAIRS)
def test_a_way_is_made_of_moves(origin: FunctionState, target: FunctionState) -> None:
    """Catching up never leaves the nine moves, and arrives."""
    steps = list(itertools.pairwise((origin, *way(origin, target))))
    assert set(steps) <= MOVES
    assert (steps[-1][1] if steps else origin) is target


class Observed(RuleBasedStateMachine):
    """Any order of observations and attempted moves."""

    def __init__(self) -> None:
        super().__init__()
        self.machine = FunctionMachine()
        self.before = self.machine.state

    @rule(activities=st.lists(st.sampled_from(Activity), max_size=4))
    def observe(self, activities: list[Activity]) -> None:
        """What is observed wins, by moves that exist, and seeing it again changes nothing."""
        entered = self.machine.observe(activities)
        assert set(itertools.pairwise((self.before, *entered))) <= MOVES
        assert self.machine.state is derive(activities)
        assert self.machine.running == activities.count(Activity.RUNNING)
        assert self.machine.observe(activities) == []
        self.before = self.machine.state

    @rule(goal=st.sampled_from(FunctionState))
    def attempt(self, goal: FunctionState) -> None:
        """A move is made or refused whole."""
        allowed = (self.machine.state, goal) in MOVES
        try:
            become(self.machine, goal)
        except InvalidTransition:
            assert not allowed
            assert self.machine.state is self.before
        else:
            assert allowed
        self.before = self.machine.state

    @invariant()
    def counts_fit_the_state(self) -> None:
        """Nothing runs but in RUNNING, and UNINITIALIZED has nothing."""
        assert (self.machine.running > 0) == (self.machine.state is R)
        if self.machine.state is U:
            assert (self.machine.restorable, self.machine.parked) == (0, 0)


TestObserved = Observed.TestCase
