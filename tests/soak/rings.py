# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of either side of a channel in the midst of its work, again and again.

Both sides are forks of this process that pass records both ways as fast as they can. Whoever is
left must be told PEER_GONE, have had whole records in order only, and let go of the region.
"""

from __future__ import annotations

import argparse
import contextlib
import ctypes
import mmap
import os
import random
import secrets
import select
import signal
import socket
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetherless_client.channel import Channel
from aetherless_client.errors import PeerGoneError
from aetherless_client.region import map_region
from aetherless_ipc.region import Region
from aetherless_ring import Consumer, Producer
from aetherless_ring._native import be_wary
from aetherless_ring.errors import RingClosedError, RingFullError
from aetherless_ring.layout import SMALLEST_RING, Direction, Layout, RecordType

if TYPE_CHECKING:
    from collections.abc import Callable

LAYOUT = Layout(SMALLEST_RING)
PR_SET_PDEATHSIG = 1  # sys/prctl.h
LONGEST_LIFE_S = 0.003
TIMEOUT_S = 30.0
LONGEST = 900


def record(number: int) -> bytes:
    """Return the payload that comes as the so manieth."""
    return number.to_bytes(8, "little") * (1 + number * 37 % LONGEST // 8)


@dataclass
class Count:
    """The records of both directions, as one side sees them."""

    sent: int = 0
    received: int = 0

    def take(self, payload: bytes) -> None:
        """Hold a record against what it must be."""
        if payload != record(self.received):
            raise AssertionError(f"record {self.received} is {payload[:8].hex()}, {len(payload)} B")
        self.received += 1


class ServiceSide:
    """The side that made the region."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.region = Region("aether-soak", LAYOUT)
        self.count = Count()
        descriptors = self.region.hand_out(1)
        socket.send_fds(control, [b"ok"], descriptors)
        self.memory: Any = mmap.mmap(descriptors[0], LAYOUT.region_bytes)
        place = (LAYOUT.ring_bytes, descriptors[1])
        self.producer = Producer(self.memory, Direction.TO_PEER, *place)
        self.consumer = Consumer(self.memory, Direction.FROM_PEER, *place)

    def work(self, until: float) -> None:
        """Pass records both ways until a time, or for ever."""
        while time.monotonic() < until:
            with contextlib.suppress(RingFullError):
                self.producer.publish(record(self.count.sent), RecordType.USER)
                self.count.sent += 1
            for _, payload in self.consumer.receive_many(16):
                self.count.take(payload)

    def end(self) -> None:
        """See that the peer is gone, close the region, and be told so by the rings."""
        poll = select.poll()
        poll.register(self.control, select.POLLRDHUP)
        assert poll.poll(TIMEOUT_S * 1000), "the end of the peer is not seen"
        self.region.close()
        try:
            while self.consumer.wait(TIMEOUT_S):
                self.count.take(self.consumer.receive()[1])
        except RingClosedError:  # PEER_GONE by its contract's name
            return
        else:
            raise AssertionError("the wait for a dead peer ended without a word")


class PeerSide:
    """The side that attached: the client's own channel."""

    def __init__(self, control: socket.socket) -> None:
        _, descriptors, _, _ = socket.recv_fds(control, 64, 3)
        control.settimeout(0)  # as the client's own attaching leaves it
        self.channel = Channel(control, map_region(descriptors, LAYOUT.ring_bytes))
        self.count = Count()

    def work(self, until: float) -> None:
        """Answer each record with one, until a time, or for ever."""
        while time.monotonic() < until:
            self.count.take(self.channel.receive(TIMEOUT_S)[1])
            self.channel.publish(record(self.count.sent), RecordType.USER, TIMEOUT_S)
            self.count.sent += 1

    def end(self) -> None:
        """Be told that the service is gone; let go of the region."""
        try:
            self.work(time.monotonic() + TIMEOUT_S)
        except PeerGoneError:
            self.channel.close()
        else:
            raise AssertionError("the work with a dead service ended without a word")


def die(side: Callable[[socket.socket], Any], control: socket.socket) -> None:
    """Work in a process of its own until it is killed, or its parent is."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGKILL)
    try:
        side(control).work(float("inf"))
    finally:
        os._exit(1)  # it was not killed, so something is wrong on this side


def kill_one(mortal: type, left: type, life: float) -> int:
    """Kill one side after so many seconds; return how many records the other had."""
    ours, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    pid = os.fork()
    if pid == 0:
        ours.close()
        die(mortal, theirs)
    theirs.close()
    with ours:
        side = left(ours)
        try:
            side.work(time.monotonic() + life)
        finally:
            # SAFETY: fork returned the id to this parent, and it is not reaped before the wait.
            os.kill(pid, signal.SIGKILL)
        side.end()
    _, status = os.waitpid(pid, 0)
    assert os.WIFSIGNALED(status), "the other side ended by itself"
    return int(side.count.received)


def held_regions() -> int:
    """Return how many regions this process has open or mapped."""
    maps = Path("/proc/self/maps").read_text().count("memfd:aether-soak")
    return maps + sum("memfd:" in target for target in open_files())


def open_files() -> list[str]:
    """Return what this process has open."""
    return [str(link.readlink()) for link in Path("/proc/self/fd").iterdir() if link.exists()]


def kill(times: int, seed: int) -> str:
    """Kill either side in turn, so many times; return a summary.

    Raises:
        AssertionError: somebody was not told, had a wrong record, or kept a region.
    """
    chance = random.Random(seed)
    be_wary()  # what it opens, once for a process, is none of a region's
    before, records = len(open_files()), 0
    for number in range(times):
        mortal, left = (PeerSide, ServiceSide) if number % 2 else (ServiceSide, PeerSide)
        records += kill_one(mortal, left, chance.uniform(0, LONGEST_LIFE_S))
        assert held_regions() == 0, f"after {number + 1} kills a region is still held"
    assert len(open_files()) == before, "descriptors are left over"
    return f"seed {seed}: {times} kills, {records} records received by who was left"


def main() -> int:
    """Kill as the command line says."""
    parser = argparse.ArgumentParser(prog="soak.rings", description=__doc__)
    parser.add_argument("--kills", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=secrets.randbits(32))
    chosen = parser.parse_args()
    print(f"seed {chosen.seed}", flush=True)
    print(kill(chosen.kills, chosen.seed))
    return 0


if __name__ == "__main__":
    sys.exit(main())
