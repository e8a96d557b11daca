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


def ring_promises(rings: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of the rings."""
    ways = (rings["one_thread"]["single call"], rings["one_thread"]["batch call"])
    for size, limit in ONE_THREAD.items():
        fastest = min(way[size] for way in ways)
        yield Promise(f"ring, {size} B in and out from Python", fastest, limit, "ns", RINGS)
    yield Promise("ring, 64 B in and out in C", rings["c_loop"]["64"], 40, "ns", RINGS)
    spinning, sleeping = (rings["two_processes"][f"ring, {how}"]["64"] for how in HOW)
    yield Promise(
        "ring, 64 B between processes, spinning, median", spinning["p50"], 0.3, "µs", RINGS
    )
    yield Promise("ring, 64 B between processes, spinning, p99", spinning["p99"], 1, "µs", RINGS)
    yield Promise("ring, 64 B between processes, sleeping, median", sleeping["p50"], 9, "µs", RINGS)
    millions = rings["flow"]["64"] / 1e6
    yield Promise("ring, records of 64 B a second", millions, 5, "million", RINGS, at_least=True)
    flow = rings["flow"]["65536"] * 65536 / GIGABYTE
    yield Promise("ring, records of 64 KiB", flow, 5, "GB/s", RINGS, at_least=True)


HOW = ("spinning", "sleeping")


def one_thread_rows(rings: dict[str, Any]) -> Iterator[str]:
    """Yield a row per way, in ns by size."""
    yield row("a loop in C", *(rounded(rings["c_loop"][size]) for size in ONE_THREAD))
    for name, found in rings["one_thread"].items():
        yield row(name, *(rounded(found[size]) for size in ONE_THREAD))


def process_rows(rings: dict[str, Any]) -> Iterator[str]:
    """Yield a row per transport, in µs."""
    for name, found in rings["two_processes"].items():
        yield row(name, *(rounded(found[size][k]) for size in found for k in ("p50", "p99")))


def ring_tables(rings: dict[str, Any]) -> list[str]:
    """Return the tables."""
    flow = rings["flow"]
    rates = ", ".join(
        f"{int(size)} B: {rate / 1e6:.2f} million/s, {rate * int(size) / GIGABYTE:.2f} GB/s"
        for size, rate in flow.items()
    )
    return [
        "One record put in and taken out by one thread, copied and checked twice, in ns.",
        "",
        *table_of(list(one_thread_rows(rings)), "", *(f"{size} B" for size in ONE_THREAD)),
        "From one Python process to another, half of a round trip, in µs.",
        "",
        *table_of(
            list(process_rows(rings)), "", "64 B, p50", "64 B, p99", "4096 B, p50", "4096 B, p99"
        ),
        f"From one Python process to another in batches: {rates}.",
        "",
        f"This host's memcpy, beside it: {rings['memcpy'] / GIGABYTE:.1f} GB/s.",
        "",
    ]
