# SPDX-License-Identifier: Apache-2.0
"""The extension's server while its regions are damaged at random, also while a handler works."""

from __future__ import annotations

import random
import struct
from contextlib import suppress
from typing import TYPE_CHECKING, Any

from unit.ring.rings import LAYOUT, RING
from unit.ring.sanitized import run_sanitized
from unit.ring.serving import Bench, request

from aetherless_ring.errors import RingError
from aetherless_ring.layout import ControlField, Direction

if TYPE_CHECKING:
    from pathlib import Path

ROUNDS = 150
STEPS = 60


class Wild:
    """A bench whose requests come at random, and whose memory changes at random."""

    def __init__(self, seed: int) -> None:
        self.chance = random.Random(seed)
        self.put = {b""}
        self.bench = Bench(self.handle, [1, 2] if self.chance.random() < 0.5 else None)

    def handle(self, data: bytes) -> Any:
        """Check that what was handed out was put in; damage, fail or return."""
        assert data in self.put, "bytes were handed out that nobody put in"
        if self.chance.random() < 0.1:
            self.damage()
        if self.chance.random() < 0.1:
            self.bench.server.take_lead()
        return self.chance.choice((data, data, data, bytearray(data), data * 3, 7))

    def publish(self) -> None:
        """Put a request in, or something like one."""
        data = self.chance.randbytes(self.chance.choice((0, 1, 64, 5000)))
        method = self.chance.choice((b"", b"p/a", b"p/z", b"p/x", b"nobody", b"m"))
        payload = request(self.chance.getrandbits(64), data, method, 0, b"t" * 55)
        self.put.add(data)
        if self.chance.random() < 0.1:
            payload = self.chance.randbytes(self.chance.randint(1, 80))
            self.put.update(payload[at:] for at in range(len(payload)))
        end = self.chance.choice((self.bench.calls, self.bench.into))
        end.publish(payload, self.chance.choice((1, 1, 1, 2, 9)))

    def damage(self) -> None:
        """Write a likely value to a likely place of one of the regions."""
        memory = self.chance.choice(self.bench.memory)
        value = self.chance.choice((0, 1, 63, 64, RING, RING + 64, 2**64 - 64))
        if self.chance.random() < 0.5:
            block = 4096 * self.chance.choice((1, 2))
            struct.pack_into("@Q", memory, block + self.chance.choice(tuple(ControlField)), value)
        else:
            place = LAYOUT.data_offset(Direction.TO_PEER) + self.chance.randrange(RING // 64) * 64
            offset = self.chance.choice((0, 4, 8, 12, 20, 36))
            struct.pack_into("@I", memory, place + offset, value & 0xFFFFFFFF)

    def take(self) -> None:
        """Take what the server left, and what it put in."""
        for end in (*self.bench.sources, self.bench.out, self.bench.answers):
            with suppress(RingError):
                end.receive()

    def step(self) -> None:
        """Do one thing."""
        with suppress(RingError):
            self.chance.choice((self.publish, self.publish, self.take))()
        if self.bench.server.at_work() is not None:
            self.bench.server.done()
        self.bench.server.serve(self.chance.choice((0.0, 1e-5)))


def run_wild() -> None:
    """Run ROUNDS benches wild: nothing but results, and no bytes but what was put in."""
    for number in range(ROUNDS):
        seed = random.SystemRandom().getrandbits(32)
        wild = Wild(seed)
        try:
            for _ in range(STEPS):
                if wild.chance.random() < 0.05 * (number % 3):
                    wild.damage()
                wild.step()
        except Exception as error:
            raise AssertionError(f"seed {seed}") from error
        finally:
            wild.bench.close()


def test_damage_at_any_moment_is_left_to_the_caller() -> None:
    """Also while a handler works."""
    run_wild()


def test_the_server_under_sanitizers(tmp_path: Path) -> None:
    """Built with the address and undefined-behaviour sanitizers, run wild in its own process."""
    run_sanitized(tmp_path, f"import {__name__} as wild; wild.run_wild()")
