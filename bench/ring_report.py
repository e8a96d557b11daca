# SPDX-License-Identifier: Apache-2.0
"""The tables and promises of the rings."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .markdown import rounded, row, table_of
from .promises import Promise

if TYPE_CHECKING:
    from collections.abc import Iterator

# ns for a record put in and taken out by one thread, checksum included, by payload size.
ONE_THREAD = {"64": 64, "1024": 190, "4096": 460, "16384": 1600, "65536": 6000}
GIGABYTE = 1e9
RINGS = "bench/rings"


def between(found: dict[str, float], factor: float = 1.0) -> str:
    """Return the lowest and the highest of the rounds, as text."""
    return f"{rounded(found['low'] * factor)} to {rounded(found['high'] * factor)}"


def ring_promises(rings: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of the rings."""
    for size, limit in ONE_THREAD.items():
        calls = {call: rings["one_thread"][f"{call} call"][size] for call in ("single", "batch")}
        call = min(calls, key=lambda name: calls[name]["median"])
        found, name = calls[call], f"ring, {size} B in and out from Python, {call} call"
        yield Promise(name, found["median"], limit, "ns", RINGS, between(found))
    loop = rings["c_loop"]["64"]
    name = "ring, 64 B in and out in C"
    yield Promise(name, loop["median"], 40, "ns", RINGS, between(loop))
    yield from trip_promises(rings)
    yield from flow_promises(rings)


def trip_promises(rings: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of half round trips."""
    spinning, sleeping = (rings["two_processes"][f"ring, {how}"]["64"] for how in HOW)
    word = rings["pingpong"]["a word"]["p50"] / 1000
    beside = f"{between(spinning)}; a single word in C {rounded(word)}"
    name = "ring, 64 B between processes, spinning"
    yield Promise(f"{name}, median", spinning["p50"], 0.3, "µs", RINGS, beside)
    yield Promise(f"{name}, p99", spinning["p99"], 1, "µs", RINGS)
    name = "ring, 64 B between processes, sleeping, median"
    yield Promise(name, sleeping["p50"], 9, "µs", RINGS, between(sleeping))


def flow_promises(rings: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of batches; large records are bound by the host's memcpy."""
    small, large, memcpy = rings["flow"]["64"], rings["flow"]["65536"], rings["memcpy"]
    name, millions = "ring, records of 64 B a second", 1e-6
    value = small["median"] * millions
    spread = between(small, millions)
    yield Promise(name, value, 5, "million", RINGS, spread, at_least=True)
    name, gigabytes = "ring, records of 64 KiB", 65536 / GIGABYTE
    copied = memcpy["median"] / GIGABYTE
    spread = f"{between(large, gigabytes)}; memcpy in one thread {rounded(copied)}"
    limit = min(5.0, copied)
    value = large["median"] * gigabytes
    yield Promise(name, value, limit, "GB/s", RINGS, spread, at_least=True)


HOW = ("spinning", "sleeping")


def one_thread_rows(rings: dict[str, Any]) -> Iterator[str]:
    """Yield a row per way: median and spread, in ns by size."""
    for name, found in {"a loop in C": rings["c_loop"], **rings["one_thread"]}.items():
        cells = (
            f"{rounded(found[size]['median'])} ({between(found[size])})" for size in ONE_THREAD
        )
        yield row(name, *cells)


def process_rows(rings: dict[str, Any]) -> Iterator[str]:
    """Yield a row per transport, in µs."""
    for name, found in rings["pingpong"].items():
        yield row(f"{name}, both sides in C", *(rounded(found[k] / 1000) for k in PARTS), "", "")
    for name, found in rings["two_processes"].items():
        cells = []
        for each in found.values():
            cells += [f"{rounded(each['p50'])} ({between(each)})", rounded(each["p99"])]
        yield row(name, *cells)


PARTS = ("p50", "p99")


def flow_rows(rings: dict[str, Any]) -> Iterator[str]:
    """Yield a row per size of records that one process passes to another in batches."""
    for size, found in rings["flow"].items():
        gigabytes = int(size) / GIGABYTE
        millions = f"{rounded(found['median'] / 1e6)} ({between(found, 1e-6)})"
        bandwidth = f"{rounded(found['median'] * gigabytes)} ({between(found, gigabytes)})"
        yield row(f"{size} B", millions, bandwidth)


def ring_tables(rings: dict[str, Any]) -> list[str]:
    """Return the tables."""
    memcpy = rings["memcpy"]
    gigabytes = f"{rounded(memcpy['median'] / GIGABYTE)} ({between(memcpy, 1 / GIGABYTE)}) GB/s"
    return [
        "One record put in and taken out by one thread, copied and checked twice, in ns.",
        "",
        *table_of(list(one_thread_rows(rings)), "", *(f"{size} B" for size in ONE_THREAD)),
        "From one process to another, half of a round trip, in µs.",
        "",
        *table_of(
            list(process_rows(rings)), "", "64 B, p50", "64 B, p99", "4096 B, p50", "4096 B, p99"
        ),
        "From one Python process to another in batches.",
        "",
        *table_of(list(flow_rows(rings)), "", "million/s", "GB/s"),
        f"This host's memcpy in pieces of 64 KiB, beside it: {gigabytes}.",
        "",
    ]
