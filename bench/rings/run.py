# SPDX-License-Identifier: Apache-2.0
"""Takes the measurements and prints them as JSON; run with the interpreter of build/bench."""

from __future__ import annotations

import gc
import json
import mmap
import os
import signal
import sys
import time
import timeit
import zlib
from array import array
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from aetherless_ring import _native, reference
from aetherless_ring.layout import Direction, Layout

from .iceoryx import Iceoryx
from .transports import RING_BYTES as FLOW_BYTES
from .transports import Grpc, HttpJson, Pipes, Ring, Tcp, UnixSocket, ZeroMq

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (64, 1024, 4096, 16384, 65536)
RING_BYTES = 1 << 20  # fits the second-level cache with its copies
ROUNDS = 9
WARM_UP = 300
SPIN_S = 0.005
FLOW_SPIN_S = 0.00005
MIDDLE = 8192
SECONDS = 0.4
LIMIT_S = 10.0
Spread = dict[str, float]
TURNED = ("median", "high", "low")  # of a rate, where those of its time are median, low and high

TRANSPORTS: dict[str, tuple[Callable[[], Any], int]] = {
    "ring, spinning": (lambda: Ring(SPIN_S), 50_000),
    "ring, sleeping": (lambda: Ring(0.0), 20_000),
    "pipe": (Pipes, 20_000),
    "Unix socket": (UnixSocket, 20_000),
    "TCP loopback": (Tcp, 10_000),
    "pyzmq, ipc": (ZeroMq, 5_000),
    "iceoryx2, polling": (Iceoryx, 10_000),
    "gRPC, Unix socket": (Grpc, 1_000),
    "HTTP and JSON": (HttpJson, 1_000),
}


def ends(module: Any) -> tuple[Any, Any]:
    """Return both ends of a ring in this process's memory."""
    memory = mmap.mmap(-1, Layout(RING_BYTES).region_bytes)
    place = (memory, Direction.TO_PEER, RING_BYTES)
    return module.Producer(*place), module.Consumer(*place)


def spread_of(values: list[float]) -> Spread:
    """Return the median of rounds with the lowest and the highest."""
    ordered = sorted(values)
    return {"median": ordered[len(ordered) // 2], "low": ordered[0], "high": ordered[-1]}


def rounds_ns(statement: str, names: dict[str, Any], count: int, records: int = 1) -> Spread:
    """Return ns per record over ROUNDS means of ``count`` runs of a statement."""
    timer = timeit.Timer(statement, globals=names)
    return spread_of([timer.timeit(count) / count / records * 1e9 for _ in range(ROUNDS)])


def single(module: Any, size: int) -> Spread:
    """Return ns for one publish and one receive."""
    producer, consumer = ends(module)
    names = {"publish": producer.publish, "receive": consumer.receive, "payload": os.urandom(size)}
    count = 20_000 if module is _native and size < MIDDLE else 2_000
    return rounds_ns("publish(payload); receive()", names, count)


def batch(size: int) -> Spread:
    """Return ns per record of one publish_many and one receive_alike."""
    producer, consumer = ends(_native)
    count = max(1, min(64, (128 << 10) // size))
    names = {
        "publish_many": producer.publish_many,
        "receive_alike": consumer.receive_alike,
        "payloads": [os.urandom(size)] * count,
        "count": count,
    }
    statement = "publish_many(payloads); receive_alike(count)"
    return rounds_ns(statement, names, max(50, 20_000 // count), count)


def in_place(size: int) -> Spread:
    """Return ns per record of one batch that is reserved and committed, peeked and released.

    Nobody writes or reads the payloads, so what is left is the checksum on both sides.
    """
    producer, consumer = ends(_native)
    count = max(1, min(64, (128 << 10) // size))
    names = {
        "reserve_many": producer.reserve_many,
        "peek_many": consumer.peek_many,
        "lengths": [size] * count,
        "count": count,
    }
    statement = "reserve_many(lengths).commit(); peek_many(count).release()"
    return rounds_ns(statement, names, max(50, 20_000 // count), count)


def yardstick(size: int) -> Spread:
    """Return ns for two copies and two checksums by zlib of the same bytes."""
    names = {"payload": os.urandom(size), "target": bytearray(size), "crc32": zlib.crc32}
    statement = "target[:] = payload; crc32(target); bytes(target); crc32(target)"
    return rounds_ns(statement, names, 20_000 if size < MIDDLE else 2_000)


def one_thread() -> dict[str, dict[int, Spread]]:
    """Return ns per record by way and size."""
    return {
        "single call": {size: single(_native, size) for size in SIZES},
        "batch call": {size: batch(size) for size in SIZES},
        "batch in place": {size: in_place(size) for size in SIZES},
        "reference in Python": {size: single(reference, size) for size in SIZES},
        "two copies and zlib.crc32": {size: yardstick(size) for size in SIZES},
    }


def with_peer(work: Callable[[], Any], serve: Callable[[], None]) -> Any:
    """Run ``serve`` in a child process and ``work`` in this one; the child is ended at the end."""
    pid = os.fork()
    if pid == 0:
        try:
            serve()
        finally:
            os._exit(0)
    try:
        return work()
    finally:
        # SAFETY: fork returned the id to this parent, and it is not reaped before the wait.
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def trips(ask: Callable[[bytes], object], payload: bytes, count: int) -> list[int]:
    """Return the ns between the ends of calls, one after another.

    The stamps' memory is there before: new pages would be most of what is rare and slow.
    """
    calls = WARM_UP + count + 1
    stamps, now = array("q", bytes(8 * calls)), time.perf_counter_ns
    for number in range(calls):
        ask(payload)
        stamps[number] = now()
    return [after - before for before, after in pairwise(stamps[WARM_UP:])]


def harness_ns() -> int:
    """Return what measuring costs by itself: a call of nothing, and the look at the clock."""
    return sorted(trips(len, b"x", 20_000))[10_000]


def half_trips(transport: Any, size: int, count: int) -> Spread:
    """Return half of a round trip's time in µs: p50 with its spread over ROUNDS, and p99."""
    own = harness_ns()
    asked = with_peer(
        lambda: trips(transport.ask, b"x" * size, count),
        lambda: transport.serve(WARM_UP + count + 1),
    )
    took = [(each - own) / 2000 for each in asked]
    each = count // ROUNDS
    rounds = [sorted(took[place : place + each]) for place in range(0, each * ROUNDS, each)]
    spread = spread_of([ordered[each // 2] for ordered in rounds])
    return spread | {"p50": spread["median"], "p99": sorted(took)[count * 99 // 100]}


def two_processes() -> dict[str, dict[int, Spread]]:
    """Return half round trips by transport and size."""
    found: dict[str, dict[int, Spread]] = {}
    for name, (make, count) in TRANSPORTS.items():
        print(f"  {name}", file=sys.stderr, flush=True)
        found[name] = {size: half_trips(make(), size, count) for size in (64, 4096)}
    return found


def flow(size: int) -> Spread:
    """Return records a second from one process to another, in batches.

    What is received at once stays below 128 KiB: the allocator keeps that much between two batches,
    and gives more than that back to the kernel, page by page.
    """
    ring = Ring(SPIN_S)
    count = max(1, min(256, (256 << 10) // size))
    limit = max(1, min(256, (96 << 10) // size))
    payloads = [b"x" * size] * count

    def produce() -> None:
        while True:
            if ring.out.publish_many(payloads) < count:
                ring.out.wait(FLOW_BYTES // 4, LIMIT_S, FLOW_SPIN_S)  # for room worth waking for

    def consume() -> Spread:
        consumer: Any = _native.Consumer(ring.memory, Direction.TO_PEER, FLOW_BYTES)
        consumer.receive(10.0)
        return spread_of([rate(consumer) for _ in range(ROUNDS)])

    def rate(consumer: Any) -> float:
        got, began = 0, time.monotonic()
        while (took := time.monotonic() - began) < SECONDS:
            taken = len(consumer.receive_alike(limit)[1])
            got += taken
            if not taken:
                consumer.wait(LIMIT_S, FLOW_SPIN_S)
        return got / took

    found: Spread = with_peer(consume, produce)
    return found


def copy_rate(size: int) -> Spread:
    """Return bytes a second of this host's memcpy, in such pieces of more than a cache holds."""
    source, target = memoryview(bytearray(64 << 20)), memoryview(bytearray(64 << 20))
    places = [slice(place, place + size) for place in range(0, len(source), size)]
    names = {"target": target, "pieces": [(place, source[place]) for place in places]}
    took = rounds_ns("for place, piece in pieces: target[place] = piece", names, 1, len(source))
    return {name: 1e9 / ns for name, ns in zip(TURNED, took.values(), strict=True)}


def main() -> None:
    """Measure all."""
    gc.disable()
    found = {"one_thread": one_thread(), "two_processes": two_processes()}
    rates = {size: flow(size) for size in (64, 4096, 65536)}
    print(json.dumps(found | {"flow": rates, "memcpy": copy_rate(65536)}))


if __name__ == "__main__":
    main()
