# SPDX-License-Identifier: Apache-2.0
"""Who reads the answers of a ring: one thread at a time, the leader.

A call's own thread leads: it reads until its answer came, hands the others theirs, and then
appoints the next. So an answer needs no thread between the peer and whom it is for. While no call
has a thread of its own, the ring dozes, and the loop's thread reads when the doorbell rings.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING

from aetherless_ring import RingEmptyError, RingError

if TYPE_CHECKING:
    from aetherless_ipc.calls import AwaitedCall
    from aetherless_ipc.ringloop import RingLoop
    from aetherless_ring import Consumer

# How long the leader sleeps at most before it looks whether its call is over by other ways.
SLICE_S = 0.05
# Looking again and again for so long before it sleeps.
SPIN_S = 0.0
AT_ONCE = 64


class Reader(ABC):
    """Reads a ring, by turns. Safe to use from any thread.

    A base, not a part: who is given the records and who reads them would hold each other, and the
    descriptors of both have to go with the last reference.

    Args:
        consumer: the ring's end.
        loop: its thread reads while no other does.
        most: how many records a ring holds; after its end no more are read.
    """

    def __init__(self, consumer: Consumer, loop: RingLoop, most: int) -> None:
        self.is_over = False
        self._is_finished = False
        self._consumer = consumer
        self._loop = loop
        self._most = most
        self._lead = threading.Lock()
        self._followers: dict[int, AwaitedCall] = {}

    @abstractmethod
    def _take(self, kind: int, payload: bytes) -> None:
        """Take a record; does not fail. Called by leaders, as are the others."""

    @abstractmethod
    def _damaged(self, error: RingError) -> None:
        """Hear that the ring is damaged, or closed; ``is_over`` is set then."""

    @abstractmethod
    def _finish(self) -> None:
        """Give back what was not answered; called once, after the last record."""

    def wait(self, call: AwaitedCall) -> None:
        """Read, or let others read, until a call that was sent is over, or went back."""
        self._followers[call.id] = call
        try:
            self._follow(call)
        finally:
            self._step_back(call)

    def _step_back(self, call: AwaitedCall) -> None:
        """Let a call be appointed the leader no more; it appoints another."""
        del self._followers[call.id]
        self._pass_on()

    def _follow(self, call: AwaitedCall) -> None:
        """Read when it is this call's turn, until it is over, or its time, or the ring."""
        while not (call.is_over or self._is_finished):
            left = call.time_left()
            if left <= 0:
                return
            if self._lead.acquire(blocking=False):
                try:
                    self._read_for(call)
                finally:
                    self._lead.release()
            else:
                call.park(left)

    def _drain(self) -> None:
        """Read some of what is there, unless somebody else does."""
        if not self._lead.acquire(blocking=False):
            return
        try:
            self._read_some()
        finally:
            self._lead.release()
        self._pass_on()

    def _pass_on(self) -> None:
        """Leave the reading to somebody: a call's thread, or the loop's when the bell rings."""
        while not self._lead.locked():
            follower = self._next_follower()
            if follower is not None and not self.is_over:
                follower.signal()
                return
            if not self._lead.acquire(blocking=False):
                return
            try:
                resting = self._rest()
            finally:
                self._lead.release()
            if not resting:
                self._loop.soon(self._drain)
                return
            if not self._followers or self._is_finished:
                return

    def _read_for(self, call: AwaitedCall) -> None:
        """Be the leader until a call is over, its deadline has passed, or there is no more."""
        while not (call.is_over or self._is_finished):
            left = call.time_left()
            if left <= 0:
                return
            try:
                kind, payload = self._consumer.receive(min(left, SLICE_S), SPIN_S)
                self._take(kind, payload)
            except RingEmptyError:
                pass
            except RingError as error:
                self._damaged(error)
            if self.is_over:
                self._read_last()

    def _read_some(self) -> bool:
        """Read what is there, up to a bound; False when nothing was. Leaders only."""
        try:
            records = self._consumer.receive_many(AT_ONCE)
        except RingError as error:
            self._damaged(error)
            return False
        for kind, payload in records:
            self._take(kind, payload)
        return bool(records)

    def _rest(self) -> bool:
        """Have the doorbell rung for the next record; False when one is there. Leaders only."""
        resting = True
        try:
            resting = self.is_over or self._consumer.doze()
        except RingError as error:
            self._damaged(error)
        if self.is_over:
            self._read_last()
        return resting

    def _read_last(self) -> None:
        """Read what is left at the end. Leaders only.

        The peer may go on writing: no more is read than a ring holds.
        """
        if self._is_finished:
            return
        left = self._most
        while left > 0 and self._read_some():
            left -= AT_ONCE
        self._is_finished = True
        self._finish()
        for follower in list(self._followers.values()):
            follower.signal()

    def _next_follower(self) -> AwaitedCall | None:
        """Return one of the calls whose threads wait."""
        while True:
            try:
                return next(iter(self._followers.values()), None)
            except RuntimeError:  # one came or went between the two steps
                continue
