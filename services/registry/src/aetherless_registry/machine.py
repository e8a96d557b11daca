# SPDX-License-Identifier: Apache-2.0
"""The state machine of a function. Pure: observations in, moves out; no clock, no I/O.

The nine moves are fixed. One ``become_*`` per state is the only way to enter it; each checks where
it comes from and resets what belonged to the old state. The picture is in this service's README.
"""

from __future__ import annotations

import enum
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterable


class FunctionState(enum.StrEnum):
    """What a function can do for its next caller."""

    # Nothing can serve it.
    UNINITIALIZED = "UNINITIALIZED"
    # No instance runs, at least one can be restored; one that CRIU restores counts as here.
    WARM_SNAPSHOT = "WARM_SNAPSHOT"
    # At least one instance runs.
    RUNNING = "RUNNING"
    # Instances exist, and all of them are parked.
    SUSPENDED = "SUSPENDED"


class Activity(enum.StrEnum):
    """What an instance of a function does, as far as the function's state depends on it."""

    # It waits for its next packet, or is being restored.
    RESTORABLE = "RESTORABLE"
    # Its process tree runs.
    RUNNING = "RUNNING"
    # Its process tree is stopped, with its memory handed back.
    PARKED = "PARKED"


U, W = FunctionState.UNINITIALIZED, FunctionState.WARM_SNAPSHOT
R, S = FunctionState.RUNNING, FunctionState.SUSPENDED

MOVES = frozenset({(U, W), (U, R), (W, R), (W, U), (R, S), (R, W), (S, R), (S, W), (S, U)})

# An observer that missed what lay between goes there by moves that exist. U to R is a move of its
# own for functions without a snapshot only; an instance that was seen running was armed before.
_DETOURS = {(U, R): (W, R), (U, S): (W, R, S), (W, S): (R, S), (R, U): (W, U)}


class InvalidTransition(Exception):  # noqa: N818  # it names the fact, as the wire reason does
    """The state machine has no such move."""

    def __init__(self, origin: FunctionState, target: FunctionState) -> None:
        super().__init__(f"no move leads from {origin} to {target}")
        self.origin = origin
        self.target = target


class FunctionMachine:
    """Holds one function's state and moves it.

    Attributes:
        state: where it is; written by ``_enter`` alone.
        restorable: instances that the next packet restores; known in every state but U.
        running: instances that run; more than zero in R, zero elsewhere.
        parked: instances that are parked; zero in U.
    """

    def __init__(self, state: FunctionState = U) -> None:
        self.state = state
        self.restorable = 0
        self.running = 0
        self.parked = 0

    def become_uninitialized(self) -> None:
        """Enter U: nothing can serve any more.

        Raises:
            InvalidTransition: a running function can't be lost without passing W.
        """
        self._enter(U, restorable=0, running=0, parked=0)

    def become_warm_snapshot(self, *, restorable: int = 0, parked: int = 0) -> None:
        """Enter W: nothing runs, ``restorable`` instances wait.

        Raises:
            InvalidTransition: it is there already.
        """
        self._enter(W, restorable=restorable, running=0, parked=parked)

    def become_running(self, *, running: int = 1, restorable: int = 0, parked: int = 0) -> None:
        """Enter R: ``running`` instances run.

        Raises:
            InvalidTransition: it is there already.
        """
        self._enter(R, restorable=restorable, running=running, parked=parked)

    def become_suspended(self, *, parked: int = 1) -> None:
        """Enter S: all instances are parked.

        Raises:
            InvalidTransition: only what ran can be parked.
        """
        self._enter(S, restorable=0, running=0, parked=parked)

    def observe(self, activities: Iterable[Activity]) -> list[FunctionState]:
        """Follow what was observed, and return the states entered on the way, the last one reached.

        What was observed wins: when no single move leads there, the machine takes the moves that
        must have happened in between.
        """
        seen = list(activities)
        counts = {activity: seen.count(activity) for activity in Activity}
        entered = list(way(self.state, derive(seen)))
        for state in entered:
            self._become(state, counts)
        self._count(counts)
        return entered

    def _become(self, state: FunctionState, counts: dict[Activity, int]) -> None:
        """Call the ``become_*`` of a state with what was counted."""
        restorable, parked = counts[Activity.RESTORABLE], counts[Activity.PARKED]
        if state is U:
            self.become_uninitialized()
        elif state is W:
            self.become_warm_snapshot(restorable=restorable, parked=parked)
        elif state is R:
            running = counts[Activity.RUNNING]
            self.become_running(running=running, restorable=restorable, parked=parked)
        else:
            self.become_suspended(parked=parked)

    def _enter(self, state: FunctionState, *, restorable: int, running: int, parked: int) -> None:
        """Set the state and every count that belongs to it."""
        if (self.state, state) not in MOVES:
            raise InvalidTransition(self.state, state)
        self.state = state
        self.restorable, self.running, self.parked = restorable, running, parked

    def _count(self, counts: dict[Activity, int]) -> None:
        """Take over the counts of the state that the machine is in."""
        self.restorable = counts[Activity.RESTORABLE]
        self.running = counts[Activity.RUNNING]
        self.parked = counts[Activity.PARKED]


def derive(activities: Iterable[Activity]) -> FunctionState:
    """Return the state that a function with these instances is in."""
    seen = set(activities)
    if Activity.RUNNING in seen:
        return R
    if Activity.RESTORABLE in seen:
        return W
    return S if seen else U


def way(origin: FunctionState, target: FunctionState) -> tuple[FunctionState, ...]:
    """Return the states to enter, one move each, to get from ``origin`` to ``target``."""
    if origin is target:
        return ()
    return _DETOURS.get((origin, target), (target,))
