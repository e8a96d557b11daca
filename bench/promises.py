# SPDX-License-Identifier: Apache-2.0
"""The promises of SPECIFICATION.md that have a number, held against results."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from .markdown import rounded
from .programs import PROGRAMS

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

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
        source: The benchmark that measures it.
        spread: How far the samples lie apart, as text.
        at_least: Whether the bound is the lowest value allowed, else the highest.
    """

    name: str
    value: float
    limit: float
    unit: str
    source: str
    spread: str = ""
    at_least: bool = False

    @property
    def holds(self) -> bool:
        """Whether the value is within the limit."""
        return self.value >= self.limit if self.at_least else self.value <= self.limit


WAKES, DEPLOYS, MEMORY = "bench/wakes.py", "bench/deploys.py", "bench/memory.py"
COMMANDS, TRACING, RATES = "bench/commands.py", "bench/tracing.py", "bench/throughput.py"


def spread_of(summary: dict[str, float]) -> str:
    """Return the tail and the extremes of a series, as text."""
    low, p95, high = (rounded(summary[k]) for k in ("minimum", "p95", "maximum"))
    return f"p95 {p95}, {low} to {high}, n = {summary['count']}"


def wake_promises(program: Program, wakes: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of one program's wakes."""
    found = wakes[program.id]
    wake, fresh = found["wake"], found["peers"]["fresh"]["p50"]
    name, median, spread = f"wake, {program.title}", wake["p50"], spread_of(wake)
    if program.p50_ms is not None:
        yield Promise(f"{name}, median", median, program.p50_ms, "ms", WAKES, spread)
    if program.p99_ms is not None:
        yield Promise(f"{name}, p99", wake["p99"], program.p99_ms, "ms", WAKES)
    if program.of_hello is not None:
        ratio = median / wakes["hello"]["wake"]["p50"]
        yield Promise(f"{name}, by hello.py's", ratio, program.of_hello, "x", WAKES)
    if fresh > SLOW_START_MS:
        yield Promise(f"{name}, by its own start", median / fresh, 0.2, "x", WAKES)


def all_wake_promises(wakes: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of wakes."""
    for each in PROGRAMS:
        if each.id in wakes:
            yield from wake_promises(each, wakes)
    request = wakes["hello"]["request"]
    name = "first SYN (kernel time) to request sent to CRIU, median"
    yield Promise(name, request["p50"], 0.3, "ms", WAKES, spread_of(request))


def deploy_promises(deploys: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of deploys and rollbacks."""
    for identity, found in deploys.items():
        added, name = found["added"], f"deploy beyond the handler's own start, {identity}"
        yield Promise(name, added["p50"], 600, "ms", DEPLOYS, spread_of(added))
        back, name = found["rollback"], f"rollback to the revision before, {identity}"
        yield Promise(name, back["p50"], 250, "ms", DEPLOYS, spread_of(back))


def memory_promises(memory: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of memory."""
    armed = memory["armed_charged"] / MEGABYTE
    yield Promise("armed sandbox, charged to its cgroup", armed, 1.5, "MiB", MEMORY)


def command_promises(commands: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of commands."""
    for command, limit in (("--help", 100), ("list", 250)):
        took = commands[command.strip("-")]
        name = f"`aetherctl {command}`, median"
        yield Promise(name, took["p50"], limit, "ms", COMMANDS, spread_of(took))


def tracing_promises(tracing: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of tracing."""
    off = tracing["off_us"]
    yield Promise("tracing that is off, added to a call, median", off, 20, "µs", TRACING)


def rate_promises(throughput: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of requests per second."""
    for program, found in throughput.items():
        ratio = found["keep"]["ratio"]
        spread = f"{ratio['low']:.3f} to {ratio['high']:.3f}"
        name = f"keep-alive requests/s, of the plain program's, {program}"
        yield Promise(name, ratio["median"], 0.85, "x", RATES, spread, at_least=True)


# By the key of the results that they are of; a run of some parts has not all of them.
KINDS: dict[str, Callable[[dict[str, Any]], Iterator[Promise]]] = {
    "wakes": all_wake_promises,
    "deploys": deploy_promises,
    "memory": memory_promises,
    "commands": command_promises,
    "tracing": tracing_promises,
    "throughput": rate_promises,
}


def promises(results: dict[str, Any]) -> Iterator[Promise]:
    """Yield each promise; ``results`` is what ``python -m bench`` keeps."""
    for key, kind in KINDS.items():
        if key in results:
            yield from kind(results[key])
