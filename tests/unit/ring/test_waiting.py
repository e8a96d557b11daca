# SPDX-License-Identifier: Apache-2.0
"""Waits, across threads and processes: nothing is lost, nobody sleeps for ever."""

from __future__ import annotations

import mmap
import os
import select
import subprocess
import sys
import threading
from pathlib import Path

import pytest
from unit.ring.rings import IMPLEMENTATIONS, LAYOUT, PAIRS, RING, pair

from aetherless_ring.errors import RingEmptyError, RingFullError
from aetherless_ring.layout import Direction

RECORDS = 3000
PEER = Path(__file__).with_name("echo_program.py")
INTERRUPTED = Path(__file__).with_name("interrupted_program.py")
TIMEOUT_S = 60.0


@pytest.mark.parametrize("spin", [0.0, 0.001])
@pytest.mark.parametrize("names", PAIRS, ids="-to-".join)
def test_two_threads_pass_every_record(names: tuple[str, str], spin: float) -> None:
    """A producer that waits for room, a consumer that waits for records, in order to the end."""
    ring = pair(*names)
    payloads = [number.to_bytes(4, "little") * (1 + number % 300) for number in range(RECORDS)]

    def produce() -> None:
        for payload in payloads:
            assert ring.producer.wait(len(payload), TIMEOUT_S, spin)
            ring.producer.publish(payload)

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    got: list[bytes] = []
    while len(got) < RECORDS:
        assert ring.consumer.wait(TIMEOUT_S, spin)
        got += [payload for _, payload in ring.consumer.receive_many(64)]
    thread.join(TIMEOUT_S)
    assert got == payloads


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_many_threads_share_an_end(name: str) -> None:
    """Four producers and four consumers on the same two ends: every record once."""
    ring = pair(name, name)
    got: list[bytes] = []
    left = threading.Semaphore(0)

    def produce(number: int) -> None:
        for count in range(500):
            while True:
                try:
                    ring.producer.publish(f"{number}-{count}".encode() * 20)
                    break
                except RingFullError:
                    ring.producer.wait(100, 0.01)
            left.release()

    def consume() -> None:
        while len(got) < 2000:
            ring.consumer.wait(0.01)
            got.extend(payload for _, payload in ring.consumer.receive_many(16))

    threads = [threading.Thread(target=produce, args=(n,), daemon=True) for n in range(4)]
    threads += [threading.Thread(target=consume, daemon=True) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(TIMEOUT_S)
    assert len(set(got)) == len(got) == 2000


@pytest.mark.parametrize("names", PAIRS, ids="-and-".join)
def test_another_process_answers(names: tuple[str, str]) -> None:
    """Records go to a process of one implementation and come back, over a memfd."""
    ours, theirs = IMPLEMENTATIONS[names[0]], names[1]
    memory_fd = os.memfd_create("ring-test")
    os.ftruncate(memory_fd, LAYOUT.region_bytes)
    memory = mmap.mmap(memory_fd, LAYOUT.region_bytes)
    command = [sys.executable, str(PEER), theirs, str(memory_fd), str(RING)]
    with subprocess.Popen(command, pass_fds=[memory_fd]) as peer:
        try:
            out = ours.Producer(memory, Direction.TO_PEER, RING)
            back = ours.Consumer(memory, Direction.FROM_PEER, RING)
            for number in range(500):
                payload = bytes([number % 256]) * (1 + number * 7 % 5000)
                assert out.wait(len(payload), TIMEOUT_S)
                out.publish(payload, number)
                assert back.receive(TIMEOUT_S, 0.0001) == (number, payload[::-1])
            out.publish(b"end", 0xFFFF)
            assert peer.wait(TIMEOUT_S) == 0
        finally:
            peer.kill()
    os.close(memory_fd)


@pytest.mark.parametrize("names", PAIRS, ids="-to-".join)
def test_a_doorbell_rings_for_who_dozes(names: tuple[str, str]) -> None:
    """Not for one that is awake; once for one that asked; not when a record is there already."""
    bell = os.eventfd(0, os.EFD_NONBLOCK)
    try:
        ring = pair(*names, doorbell=bell)
        ring.producer.publish(b"awake")
        assert not select.select([bell], [], [], 0)[0]
        assert ring.consumer.doze() is False
        ring.consumer.receive()
        assert ring.consumer.doze() is True
        ring.producer.publish(b"asleep")
        ring.producer.publish(b"again")
        assert os.eventfd_read(bell) == 1
        assert len(ring.consumer.receive_many(9)) == 2
        assert ring.producer.counts()["wakes"] == 1
    finally:
        os.close(bell)


@pytest.mark.parametrize("name", IMPLEMENTATIONS)
def test_a_wait_ends_in_time(name: str) -> None:
    """Without a record, and without room."""
    ring = pair(name, name)
    assert ring.consumer.wait(0.02) is False
    with pytest.raises(RingEmptyError):
        ring.consumer.receive(0.02, 0.001)
    assert ring.consumer.counts()["sleeps"] >= 1
    while ring.producer.publish_many([bytes(1008)]):
        pass
    assert ring.producer.wait(1008, 0.02, 0.001) is False


def test_a_signal_lets_another_thread_wait_at_the_same_end() -> None:
    """Neither then keeps the other from going on; a process that hangs hears no other signal."""
    subprocess.run([sys.executable, str(INTERRUPTED)], check=True, timeout=TIMEOUT_S)
