# SPDX-License-Identifier: Apache-2.0
"""The promises of SPECIFICATION.md that have a number, held against results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .programs import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .programs import Program

# A program whose own start takes longer than this must wake within a fifth of it.
SLOW_START_MS = 60.0
MEGABYTE = 1 << 20


@dataclass(frozen=True)
class Promise:
    """A limit and what was measured.

    Arguments:
        name: What is promised.
        value: What was measured.
        limit: The bound.
        unit: The unit of both.
        at_least: Whether the bound is the lowest value allowed, else the highest.
    """

    name: str
    value: float
    limit: float
    unit: str
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


def wake_promises(program: Program, wakes: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of one program's wakes."""
    found = wakes[program.id]
    median = found["wake"]["p50"]
    if program.p50_ms is not None:
        yield Promise(f"wake, {program.title}, median", median, program.p50_ms, "ms")
    if program.p99_ms is not None:
        yield Promise(f"wake, {program.title}, p99", found["wake"]["p99"], program.p99_ms, "ms")
    if program.of_hello is not None:
        ratio = median / wakes["hello"]["wake"]["p50"]
        yield Promise(f"wake, {program.title}, by hello.py's", ratio, program.of_hello, "x")
    fresh = found["peers"]["fresh"]["p50"]
    if fresh > SLOW_START_MS:
        yield Promise(f"wake, {program.title}, by its own start", median / fresh, 0.2, "x")


def promises(results: dict[str, Any]) -> Iterator[Promise]:
    """Yield each promise; ``results`` is what ``python -m bench`` keeps."""
    wakes, commands = results["wakes"], results["commands"]
    for program in PROGRAMS:
        if program.id in wakes:
            yield from wake_promises(program, wakes)
    request = wakes["hello"]["request"]["p50"]
    yield Promise("first SYN to request sent, median", request, 0.3, "ms")
    for identity, found in results["deploys"].items():
        added = found["added"]["p50"]
        yield Promise(f"deploy beyond the handler's own start, {identity}", added, 600, "ms")
    armed = results["memory"]["armed_charged"] / MEGABYTE
    yield Promise("armed sandbox, charged to its cgroup", armed, 1.5, "MiB")
    yield Promise("`aetherctl --help`, median", commands["help"]["p50"], 100, "ms")
    yield Promise("`aetherctl list`, median", commands["list"]["p50"], 250, "ms")
    off = results["tracing"]["off_us"]
    yield Promise("tracing that is off, added to a call, median", off, 20, "µs")
    keep = min(found["keep"]["ratio"]["median"] for found in results["throughput"].values())
    yield Promise("keep-alive requests/s, ratio, the worse", keep, 0.85, "x", at_least=True)
