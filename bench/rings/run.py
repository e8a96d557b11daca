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
import zlib
from typing import TYPE_CHECKING, Any

from aetherless_ring import _native, reference
from aetherless_ring.layout import Direction, Layout

from .iceoryx import Iceoryx
from .transports import Grpc, HttpJson, Pipes, Ring, Tcp, UnixSocket, ZeroMq

if TYPE_CHECKING:
    from collections.abc import Callable

SIZES = (64, 1024, 4096, 16384, 65536)
RING_BYTES = 1 << 20  # fits the second-level cache with its copies
ROUNDS = 9
WARM_UP = 200
SPIN_S = 0.005
SECONDS = 1.0

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


def best_ns(step: Callable[[], None], count: int) -> float:
    """Return the lowest of ROUNDS means, in ns per call: what the code costs without the host."""
    found = []
    for _ in range(ROUNDS):
        began = time.perf_counter_ns()
        for _ in range(count):
            step()
        found.append((time.perf_counter_ns() - began) / count)
    return min(found)


def single(module: Any, size: int) -> float:
    """Return ns for one publish and one receive."""
    producer, consumer = ends(module)
    publish, receive, payload = producer.publish, consumer.receive, os.urandom(size)

    def step() -> None:
        publish(payload)
        receive()

    return best_ns(step, 20_000 if module is _native and size < 8192 else 2_000)


def batch(size: int) -> float:
    """Return ns per record of one publish_many and one receive_many."""
    producer, consumer = ends(_native)
    count = max(1, min(64, (128 << 10) // size))
    payloads = [os.urandom(size)] * count

    def step() -> None:
        producer.publish_many(payloads)
        consumer.receive_many(count)

    return best_ns(step, max(50, 20_000 // count)) / count


def yardstick(size: int) -> float:
    """Return ns for two copies and two checksums by zlib of the same bytes."""
    payload, target = os.urandom(size), bytearray(size)

    def step() -> None:
        target[:] = payload
        zlib.crc32(target)
        bytes(target)
        zlib.crc32(target)

    return best_ns(step, 20_000 if size < 8192 else 2_000)


def one_thread() -> dict[str, dict[int, float]]:
    """Return ns per record by way and size."""
    return {
        "single call": {size: single(_native, size) for size in SIZES},
        "batch call": {size: batch(size) for size in SIZES},
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


def half_trips(transport: Any, size: int, count: int) -> dict[str, float]:
    """Return half of a round trip's time, in µs."""
    payload = b"x" * size

    def work() -> list[int]:
        for _ in range(WARM_UP):
            transport.ask(payload)
        took, now = [], time.perf_counter_ns
        for _ in range(count):
            began = now()
            transport.ask(payload)
            took.append(now() - began)
        return took

    took = sorted(with_peer(work, lambda: transport.serve(count + WARM_UP)))
    return {"p50": took[count // 2] / 2000, "p99": took[count * 99 // 100] / 2000}


def two_processes() -> dict[str, dict[int, dict[str, float]]]:
    """Return half round trips by transport and size."""
    found: dict[str, dict[int, dict[str, float]]] = {}
    for name, (make, count) in TRANSPORTS.items():
        print(f"  {name}", file=sys.stderr, flush=True)
        found[name] = {size: half_trips(make(), size, count) for size in (64, 4096)}
    return found


def flow(size: int) -> float:
    """Return records a second from one process to another, in batches."""
    ring = Ring(SPIN_S)
    count = max(1, min(256, (256 << 10) // size))
    payloads = [b"x" * size] * count

    def produce() -> None:
        while True:
            ring.out.publish_many(payloads)

    def consume() -> float:
        consumer: Any = _native.Consumer(ring.memory, Direction.TO_PEER, 1 << 22)
        consumer.receive(10.0)
        got, began = 0, time.monotonic()
        while (took := time.monotonic() - began) < SECONDS:
            got += len(consumer.receive_many(1024))
        return got / took

    found: float = with_peer(consume, produce)
    return found


def copy_rate(size: int) -> float:
    """Return bytes a second of this host's memcpy, over more memory than a cache holds."""
    source, target = bytearray(64 << 20), bytearray(64 << 20)
    began, done = time.monotonic(), 0
    while time.monotonic() - began < SECONDS:
        target[:] = source
        done += len(source)
    del size
    return done / (time.monotonic() - began)


def main() -> None:
    """Measure all."""
    gc.disable()
    found = {"one_thread": one_thread(), "two_processes": two_processes()}
    rates = {size: flow(size) for size in (64, 4096, 65536)}
    print(json.dumps(found | {"flow": rates, "memcpy": copy_rate(0)}))


if __name__ == "__main__":
    main()
