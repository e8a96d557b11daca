# SPDX-License-Identifier: Apache-2.0
"""Every call of both ends while the region is damaged at random between them."""

from __future__ import annotations

import random
import struct
from typing import TYPE_CHECKING, Any

import pytest
from unit.ring.rings import IMPLEMENTATIONS, PAIRS, RING, Pair, pair
from unit.ring.sanitized import run_sanitized

from aetherless_ring.errors import RingError
from aetherless_ring.layout import ControlField, Direction, HeaderField

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

ROUNDS = 40
STEPS = 150
LONGEST = 3000


class Wild:
    """A ring whose calls are made at random, and whose memory changes at random."""

    def __init__(self, names: tuple[str, str], seed: int) -> None:
        self.ring: Pair = pair(*names)
        self.chance = random.Random(seed)
        self.put: set[bytes] = set()

    def payload(self) -> bytes:
        """Return bytes that were not put in before; now and then too many, or none."""
        size = self.chance.choice((0, 1, 16, 48, 64, LONGEST, RING))
        made = self.chance.randbytes(self.chance.randint(min(size, 1), size))
        self.put.add(made)
        return made

    def publish(self) -> None:
        """Put one or several in."""
        if self.chance.random() < 0.5:
            self.ring.producer.publish(self.payload(), self.chance.getrandbits(2))
        else:
            self.ring.producer.publish_many([self.payload() for _ in range(3)])

    def fill(self) -> None:
        """Put one or several in, in place, or give them up."""
        if self.chance.random() < 0.5:
            batch = self.ring.producer.reserve_many([len(self.payload()) for _ in range(3)])
            views = batch.views
        else:
            batch = self.ring.producer.reserve(len(self.payload()))
            views = [batch.view]
        with batch:
            for view in views:
                view[:] = self.chance.randbytes(len(view))
                self.put.add(bytes(view))
            if self.chance.random() < 0.8:
                batch.commit()

    def receive(self) -> list[bytes]:
        """Take out in any way; return the payloads."""
        consumer = self.ring.consumer
        ways: tuple[Callable[[], list[bytes]], ...] = (
            lambda: [consumer.receive()[1]],
            lambda: [consumer.hold()[1]],
            lambda: [payload for _, payload in consumer.receive_many(4)],
            lambda: list(consumer.receive_alike(4)[1]),
        )
        return self.chance.choice(ways)()

    def peek(self) -> None:
        """Look at one or several; what is shown in place may change, so it is not compared."""
        consumer = self.ring.consumer
        with consumer.peek_many(3) if self.chance.random() < 0.5 else consumer.peek():
            pass

    def go_on(self) -> None:
        """Release what is held, or have another consumer take the place."""
        if self.chance.random() < 0.5:
            self.ring.consumer.release()
        else:
            make: Any = IMPLEMENTATIONS[self.chance.choice(tuple(IMPLEMENTATIONS))].Consumer
            self.ring.consumer = make(self.ring.memory, Direction.TO_PEER, RING, resume=True)

    def wait(self) -> None:
        """Wait, for a moment at most."""
        self.ring.consumer.wait(0.0)
        self.ring.producer.wait(100, 0.0)

    def damage(self) -> None:
        """Write a likely value to a likely place."""
        value = self.chance.choice(
            (0, 1, 63, 64, RING, RING + 64, 2**32 - 1, 2**64 - 64, self.chance.getrandbits(64))
        )
        if self.chance.random() < 0.5:
            field = self.chance.choice(tuple(ControlField))
            struct.pack_into("@Q", self.ring.control, field, value)
        elif self.chance.random() < 0.9:
            place = self.chance.randrange(RING // 64) * 64 + self.chance.choice((0, 4, 8, 12, 20))
            struct.pack_into("@I", self.ring.data, place, value & 0xFFFFFFFF)
        else:
            struct.pack_into("@I", self.ring.memory, HeaderField.CLOSED, value & 1)

    def step(self) -> None:
        """Do one thing; what is handed out was put in."""
        acts = (self.publish, self.fill, self.receive, self.receive, self.peek, self.go_on)
        try:
            given = self.chance.choice((*acts, self.wait))()
        except RingError:
            return
        for payload in given or ():
            assert payload in self.put, "bytes were handed out that nobody put in"


def run_wild(names: tuple[str, str]) -> None:
    """Run ROUNDS rings wild: nothing but the ring's own errors, no bytes but what was put in."""
    for number in range(ROUNDS):
        seed = random.SystemRandom().getrandbits(32)
        wild = Wild(names, seed)
        try:
            for _ in range(STEPS):
                if wild.chance.random() < 0.02 * (number % 3):
                    wild.damage()
                wild.step()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error


@pytest.mark.parametrize("names", PAIRS, ids="-to-".join)
def test_damage_between_calls_is_told_or_harmless(names: tuple[str, str]) -> None:
    """Each call returns or refuses by the ring's own errors."""
    run_wild(names)


def test_the_extension_under_sanitizers(tmp_path: Path) -> None:
    """Built with the address and undefined-behaviour sanitizers, run wild in its own process."""
    run_sanitized(tmp_path, f"import {__name__} as wild; wild.run_wild(('native', 'native'))")
