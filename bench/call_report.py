# SPDX-License-Identifier: Apache-2.0
"""The tables and promises of calls through shared memory."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .markdown import rounded, row, table_of
from .promises import Promise, spread_of

if TYPE_CHECKING:
    from collections.abc import Iterator

CALLS = "bench/calls"
INVOKE = "Invoke, handler sleeping"
ATTACHING = "from its connect to the mapped region, at once after another or 25 ms later"
HOPS = (
    "From the result of a stage to the handler of the next, both in Python, in µs: of a record "
    "that goes round between two stages; and of one run at a time through the service, whose next "
    "stage did nothing since the run before."
)


def between(found: dict[str, float]) -> str:
    """Return the lowest and the highest of the rounds, as text."""
    return f"{rounded(found['low'])} to {rounded(found['high'])}"


def call_promises(calls: dict[str, Any]) -> Iterator[Promise]:
    """Yield what is promised of calls."""
    ratio = calls["invoke"][INVOKE]["ratio"]
    name = "Invoke to a Python handler, of an empty gRPC call"
    yield Promise(name, ratio["median"], 1.3, "x", CALLS, between(ratio))
    for when, attach in calls["attach_ms"].items():
        name = f"attaching a channel, as after a restore, {when}, median"
        yield Promise(name, attach["p50"], 0.5, "ms", CALLS, spread_of(attach))
    for how, limit in (("sleeping", 10), ("spinning", 1)):
        name = f"from one pipeline stage to the next, Python, {how}"
        for when, hop in (
            ("both at work", calls["hop_us"][how]),
            ("the next idle before", calls["first_hop_us"][how]),
        ):
            yield Promise(f"{name}, {when}", hop["p50"], limit, "µs", CALLS, spread_of(hop))


def hop_rows(calls: dict[str, Any]) -> Iterator[str]:
    """Yield the rows of the hops."""
    hops = {f"both at work, {how}": hop for how, hop in calls["hop_us"].items()}
    hops |= {f"the next idle before, {how}": hop for how, hop in calls["first_hop_us"].items()}
    for name, hop in hops.items():
        columns = ("p50", "p95", "p99", "minimum", "maximum")
        yield row(name, *(rounded(hop[column]) for column in columns))


def call_tables(calls: dict[str, Any]) -> list[str]:
    """Return the tables."""
    rows = []
    for name, found in calls["invoke"].items():
        us, ratio = found["us"], found["ratio"]
        cells = (rounded(us["median"]), between(us), rounded(ratio["median"]), between(ratio))
        rows.append(row(name, *cells))
    attach = (
        f"{when} {rounded(each['p50'])} ms ({spread_of(each)})"
        for when, each in calls["attach_ms"].items()
    )
    return [
        "A call and its answer, 64 B each, in µs: medians of rounds in turn, and their ratio.",
        "",
        *table_of(rows, "", "median", "spread", "of the empty call", "spread"),
        HOPS,
        "",
        *table_of(list(hop_rows(calls)), "", "median", "p95", "p99", "lowest", "highest"),
        f"Attaching a channel, {ATTACHING}: {', '.join(attach)}.",
        "",
    ]
