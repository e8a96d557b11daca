# SPDX-License-Identifier: Apache-2.0
"""A function that calls others in ways that no library does; it never reads its ring."""

from __future__ import annotations

import fcntl
import mmap
import os
import socket
import struct
import sys
import time
from contextlib import suppress

from aetherless_client import Channel, attach
from aetherless_client.edges import SLOTS_OFFSET
from aetherless_ring.layout import ControlField, Direction

CALL = 6
ON_DOORBELL = 2
MOST = 2**64 - 2
LONGEST = 0xFFFF


def call(number: int, trace: bytes, method: bytes, deadline_ns: int = 0) -> bytes:
    """Return the payload of a call's record."""
    head = struct.pack("<QQIHH", number, deadline_ns, 1, len(trace), len(method))
    return head + trace + method


def write(way: str, channel: Channel) -> None:
    """Write what is told."""
    if way == "strange-trace":
        channel.publish(call(1, b"\xff" * LONGEST, b"c"), CALL, 10)
    elif way == "line-in-trace":
        channel.publish(call(1, b"a\nb", b"c"), CALL, 10)
    elif way == "strange-method":
        channel.publish(call(1, b"", b"c/" + b"\xff" * (LONGEST - 2)), CALL, 10)
    elif way == "flood":
        for number in range(20_000):
            channel.publish(call(number, b"", b"none"), CALL, 10)
    elif way == "doorbell":
        trick_the_doorbell(channel)
    else:
        stop_the_doorbell(channel)


def trick_the_doorbell(channel: Channel) -> None:
    """Have reads of the service's doorbell wait; ring it, and take each ring before it does."""
    _, _, bell = channel._region.descriptors
    fcntl.fcntl(bell, fcntl.F_SETFL, 0)
    for _ in range(20_000):
        os.eventfd_write(bell, 1)
        with suppress(BlockingIOError):
            os.preadv(bell, [bytearray(8)], -1, os.RWF_NOWAIT)


def stop_the_doorbell(channel: Channel) -> None:
    """Have writes to the peer's doorbell wait, and ask to be woken by it."""
    memory, bell, other = channel._region.descriptors
    for each in (bell, other):
        fcntl.fcntl(each, fcntl.F_SETFL, 0)
        with suppress(BlockingIOError):
            os.preadv(each, [bytearray(8)], -1, os.RWF_NOWAIT)
        os.eventfd_write(each, MOST)
    layout = channel.layout
    asleep = layout.control_offset(Direction.TO_PEER) + ControlField.CONSUMER_ASLEEP
    with mmap.mmap(memory, layout.region_bytes) as region:
        struct.pack_into("=I", region, asleep, ON_DOORBELL)


def connect_all_the_time(path: str) -> None:
    """Come and go without end; say how many seconds each hundred times took."""
    while True:
        begun = time.monotonic()
        for _ in range(100):
            with socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET) as connection:
                connection.connect(path)
                connection.recv(512)
        print(time.monotonic() - begun, flush=True)


def leave_regions(path: str) -> None:
    """Come and go, each time leaving an edge's region that looks as if it were in use."""
    for number in range(1, 1_000_000):
        with attach(path) as channel:
            while not (stages := list(channel.stages._stages.values())) or not stages[0].routes:
                channel.sleep(10)
            region = stages[0].routes[0].output.region
            assert region
            control = region.layout.control_offset(Direction.TO_PEER)
            struct.pack_into("=Q", region.memory, control + SLOTS_OFFSET, number)
        print(number, flush=True)


def main() -> None:
    """Write once, then stay until standard input ends."""
    path = sys.stdin.readline().strip()
    if sys.argv[1] == "connect":
        connect_all_the_time(path)
    if sys.argv[1] == "regions":
        leave_regions(path)
    channel = attach(path)
    write(sys.argv[1], channel)
    sys.stdin.read()


if __name__ == "__main__":
    main()
