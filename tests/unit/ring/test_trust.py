# SPDX-License-Identifier: Apache-2.0
"""What a peer may do to the other side: nothing. Damage of live regions, death at any moment."""

from __future__ import annotations

import contextlib
import mmap
import os
import random
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, RING

from aetherless_ring.errors import RingEmptyError
from aetherless_ring.layout import Direction

if TYPE_CHECKING:
    from collections.abc import Iterator

ROOT = Path(__file__).resolve().parents[3]
FUZZER = ROOT / "services" / "ipc" / "ring" / "native" / "check" / "fuzz.c"
PEER = Path(__file__).with_name("endless_program.py")
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all", "-g", "-O1")
ROUNDS = 1500
KILLS = 12
TIMEOUT_S = 60.0


@pytest.mark.parametrize("flags", [SANITIZERS, ("-O3",)], ids=["sanitized", "optimised"])
def test_damage_does_no_harm(flags: tuple[str, ...], tmp_path: Path) -> None:
    """A fuzzer writes what it likes, also while it is read; nothing crashes, hangs or slips by."""
    program = tmp_path / "fuzz"
    subprocess.run(
        ["gcc", *flags, "-Wall", "-Wextra", "-pthread", "-o", program, FUZZER],
        check=True,
        timeout=TIMEOUT_S,
    )
    seed = str(random.SystemRandom().getrandbits(32))
    done = subprocess.run(
        [program, seed, str(ROUNDS)], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.returncode == 0, f"seed {seed}: {done.stdout}{done.stderr}"


@contextlib.contextmanager
def peer(name: str, role: str) -> Iterator[tuple[subprocess.Popen[bytes], mmap.mmap]]:
    """Start an endless peer over a new region."""
    descriptor = os.memfd_create("ring-test")
    try:
        os.ftruncate(descriptor, LAYOUT.region_bytes)
        memory = mmap.mmap(descriptor, LAYOUT.region_bytes)
        command = [sys.executable, str(PEER), name, role, str(descriptor), str(RING)]
        with subprocess.Popen(command, pass_fds=[descriptor]) as process:
            try:
                yield process, memory
            finally:
                process.kill()
    finally:
        os.close(descriptor)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_producer_killed_anywhere_leaves_whole_records(name: str) -> None:
    """All that it showed is right and in order; what it did not finish is not seen."""
    chance = random.Random()
    for _ in range(KILLS):
        with peer(name, "produce") as (process, memory):
            consumer = IMPLEMENTATIONS[name].Consumer(memory, Direction.TO_PEER, RING)
            expected = 0
            assert consumer.wait(TIMEOUT_S)
            until = time.monotonic() + chance.uniform(0, 0.02)
            while time.monotonic() < until:
                consumer.wait(0.001)
                expected = check(consumer.receive_many(50), expected)
            process.kill()
            process.wait(TIMEOUT_S)
            with contextlib.suppress(RingEmptyError):
                while True:
                    expected = check([consumer.receive()], expected)
            assert consumer.wait(0.001) is False
            assert expected > 0


def check(records: list[tuple[int, bytes]], expected: int) -> int:
    """Hold records against what the peer writes; return the next number."""
    for _, payload in records:
        assert payload == expected.to_bytes(4, "little") * (1 + expected * 37 % 900)
        expected += 1
    return expected


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_consumer_killed_anywhere_leaves_a_full_ring(name: str) -> None:
    """The producer can go on until there is no room, and its wait ends in time."""
    chance = random.Random()
    for _ in range(KILLS):
        with peer(name, "consume") as (process, memory):
            producer = IMPLEMENTATIONS[name].Producer(memory, Direction.TO_PEER, RING)
            until = time.monotonic() + chance.uniform(0.1, 0.2)
            while time.monotonic() < until:
                producer.publish_many([bytes(500)] * 20)
            process.kill()
            process.wait(TIMEOUT_S)
            while producer.publish_many([bytes(500)] * 20):
                pass
            assert producer.wait(500, 0.001) is False
