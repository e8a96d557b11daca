# SPDX-License-Identifier: Apache-2.0
"""Turns results into the tables of docs/benchmarks.md."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from .call_report import call_promises, call_tables
from .images import HTTP, PIPELINE
from .markdown import rounded, row, table_of
from .peers import TITLES
from .programs import PROGRAMS
from .promises import promises
from .ring_report import ring_promises, ring_tables

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from .promises import Promise

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
MODES = {"keep": "keep-alive", "new": "new connection per request"}
RATE_PROGRAMS = {"hello": "examples/hello.py", "go": "Go net/http"}
TIMING = ("n", "p50", "p95", "p99", "min", "max")
NAMES = {program.id: program.title for program in PROGRAMS}


def mebibytes(value: float) -> str:
    """Return a number of bytes in MiB."""
    return rounded(value / (1 << 20))


def summary_row(label: str, summary: dict[str, float]) -> str:
    """Return a row of count, median, percentiles and extremes."""
    shown = (rounded(summary[k]) for k in ("p50", "p95", "p99", "minimum", "maximum"))
    return row(label, summary["count"], *shown)


def promise_row(promise: Promise) -> str:
    """Return a promise with what was measured and whether it holds."""
    sign = "≥" if promise.at_least else "≤"
    holds = "yes" if promise.holds else "**no**"
    value = rounded(promise.value)
    return row(
        promise.name, f"{sign} {promise.limit:g} {promise.unit}", f"{value} {promise.unit}", holds
    )


def all_promises(results: dict[str, Any]) -> list[Promise]:
    """Return every promise that has a number."""
    found = [*promises(results)]
    if "rings" in results:
        found += ring_promises(results["rings"])
    if "calls" in results:
        found += call_promises(results["calls"])
    return found


def promise_table(results: dict[str, Any]) -> list[str]:
    """Return the table of all promises."""
    rows = [promise_row(promise) for promise in all_promises(results)]
    return table_of(rows, "promise", "limit", "measured", "holds")


def specification(results: dict[str, Any]) -> str:
    """Return the table of SPECIFICATION.md: each promise, who measures it, and the last value."""
    rows = []
    for promise in all_promises(results):
        sign = "≥" if promise.at_least else "≤"
        value = f"{rounded(promise.value)} {promise.unit}"
        value += f" ({promise.spread})" if promise.spread else ""
        value += "" if promise.holds else ": **not kept**"
        limit = f"{sign} {promise.limit:g} {promise.unit}"
        rows.append(row(promise.name, limit, f"`{promise.source}`", value))
    return "\n".join([host_line(results["host"]), "", *_columns(rows)])


def _columns(rows: list[str]) -> list[str]:
    heads = ("promise", "limit", "benchmark", "measured last")
    return [row(*heads), "| --- | --- | --- | --- |", *rows, ""]


def hello_table(wakes: dict[str, Any]) -> list[str]:
    """Return where the time of hello.py's wakes goes, and every other way beside it."""
    hello = wakes["hello"]
    rows = [
        summary_row("**wake**: connect to first byte, nothing running", hello["wake"]),
        summary_row("of which restore: request to CRIU to its answer", hello["restore"]),
        summary_row("of which first SYN (kernel time) to request sent to CRIU", hello["request"]),
        *(summary_row(TITLES[name], found) for name, found in hello["peers"].items()),
    ]
    return [
        (
            "Wakes of examples/hello.py, and other ways to a first answer: start to first byte, in "
            f"milliseconds; {hello['retransmissions']} retransmissions."
        ),
        "",
        *table_of(rows, "", *TIMING),
    ]


def program_rows(wakes: dict[str, Any]) -> Iterator[str]:
    """Yield a row per program: its wakes beside its own start."""
    for identity, found in wakes.items():
        fresh, wake, restore = found["peers"]["fresh"], found["wake"], found["restore"]
        yield row(
            NAMES[identity],
            wake["count"],
            *(rounded(wake[k]) for k in ("p50", "p95", "p99")),
            rounded(restore["p50"]),
            rounded(fresh["p50"]),
            f"1/{fresh['p50'] / wake['p50']:.1f}",
            found["retransmissions"],
        )


def program_table(wakes: dict[str, Any]) -> list[str]:
    """Return the table of all programs' wakes."""
    heads = ("n", "p50", "p95", "p99", "of which restore", "its own start", "wake / start", "retr.")
    return [
        (
            "Wakes of every program, connect to first byte with nothing running, in milliseconds, "
            "beside the same handler started fresh in the same run (medians)."
        ),
        "",
        *table_of(list(program_rows(wakes)), "", *heads),
    ]


def size_table(wakes: dict[str, Any]) -> list[str]:
    """Return the table of snapshot sizes."""
    rows = [
        row(
            NAMES[identity],
            *(mebibytes(found["snapshot"][k]) for k in ("size_bytes", "resident_bytes")),
            *(mebibytes(found["snapshot"][k]) for k in ("shared_bytes", "eager_bytes")),
        )
        for identity, found in wakes.items()
    ]
    heads = ("snapshot on disk", "program's memory at the dump", "shared by clones", "copied")
    return ["Snapshots, in MiB.", "", *table_of(rows, "", *heads)]


def deploy_table(deploys: dict[str, Any]) -> list[str]:
    """Return the table of deploys."""
    rows = [
        row(
            NAMES[identity],
            found["total"]["count"],
            *(rounded(found[k]["p50"]) for k in ("total", "own", "added")),
            rounded(found["added"]["maximum"]),
            *(rounded(found["rollback"][k]) for k in ("p50", "maximum")),
        )
        for identity, found in deploys.items()
    ]
    own = "of which the handler's own start and warm-up"
    heads = ("n", "deploy", own, "added", "added, max", "rollback", "rollback, max")
    return [
        "Deploys of a changed revision, and rollbacks: from call to switch, in milliseconds.",
        "",
        *table_of(rows, "", *heads),
    ]


def memory_lines(results: dict[str, Any]) -> list[str]:
    """Return what is kept in memory, and how many restores a second are sustained."""
    found, restores = results["memory"], results["restores"]
    services = ", ".join(f"{n} {mebibytes(size)}" for n, size in found["services"].items())
    return [
        (
            f"- Armed sandbox of hello.py: {mebibytes(found['armed_charged'])} MiB charged to "
            f"its cgroup, kernel objects included; PSS of its init {mebibytes(found['init'])} MiB "
            f"and of its waiting criu {mebibytes(found['criu'])} MiB, mostly program text."
        ),
        (
            f"- The four services, PSS: {mebibytes(sum(found['services'].values()))} MiB together "
            f"({services})."
        ),
        (
            f"- Restores sustained for {restores['seconds']:.0f} s, with {restores['functions']} "
            "copies of hello.py called, answered and evicted in turn: "
            f"{restores['per_second']:.0f} a second."
        ),
        "",
    ]


def rate_row(program: str, mode: str, found: dict[str, Any]) -> str:
    """Return a row of both rates and their ratio with its spread."""
    plain, trigger, ratio = found["plain"], found["trigger"], found["ratio"]
    return row(
        f"{RATE_PROGRAMS[program]}, {MODES[mode]}",
        f"{plain['median']:.0f}",
        f"{trigger['median']:.0f}",
        f"{ratio['median']:.1%}",
        f"{ratio['low']:.1%} to {ratio['high']:.1%}",
        f"{rounded(found['plain_p99_ms'])} / {rounded(found['trigger_p99_ms'])}",
    )


def rate_table(throughput: dict[str, Any]) -> list[str]:
    """Return the table of requests per second."""
    rows = [
        rate_row(name, mode, found[mode]) for name, found in throughput.items() for mode in MODES
    ]
    return [
        (
            "Requests per second, 16 connections: on the host's loopback without a sandbox, and "
            "through the trigger port; medians of rounds in turn, ratio of neighbouring rounds."
        ),
        "",
        *table_of(rows, "", "plain", "trigger port", "ratio", "spread", "p99 ms"),
    ]


def command_table(commands: dict[str, Any]) -> list[str]:
    """Return the table of commands."""
    labels = {"help": "`aetherctl --help`", "list": "`aetherctl list`"}
    rows = [summary_row(labels[name], found) for name, found in commands.items()]
    return ["Commands, wall time in milliseconds.", "", *table_of(rows, "", *TIMING)]


def image_table(images: dict[str, Any]) -> list[str]:
    """Return the table of the image pipeline beside HTTP."""
    rows = [summary_row(name, images[name]) for name in (PIPELINE, HTTP)]
    ratio = images["ratio"]
    return [
        (
            "A picture of 640 x 480 through three Python functions, decode, resize and encode "
            "([pipelines](pipelines.md)), in milliseconds; the pipeline takes "
            f"{rounded(ratio['median'])} x the time of HTTP in the same round "
            f"({rounded(ratio['low'])} to {rounded(ratio['high'])})."
        ),
        "",
        *table_of(rows, "", *TIMING),
    ]


def host_line(host: dict[str, Any]) -> str:
    """Return what the numbers depend on."""
    return (
        f"Measured on {host['date']}: {host['processors']} cores ({host['model']}), "
        f"{host['memory_gib']} GiB, Linux {host['kernel']}, CRIU {host['criu']}, "
        f"Python {host['python']}; commit {host['commit']}."
    )


PLOTS = [
    "![first answers of hello.py](plots/hello.svg)",
    "",
    "![wakes](plots/programs.svg)",
    "",
]
# By the key of the results that they are of; a run of some parts has not all of them.
SECTIONS: dict[str, Callable[[dict[str, Any]], list[str]]] = {
    "wakes": lambda results: [
        *PLOTS,
        *hello_table(results["wakes"]),
        *program_table(results["wakes"]),
        *size_table(results["wakes"]),
    ],
    "deploys": lambda results: deploy_table(results["deploys"]),
    "memory": memory_lines,
    "commands": lambda results: command_table(results["commands"]),
    "throughput": lambda results: rate_table(results["throughput"]),
    "rings": lambda results: ring_tables(results["rings"]),
    "calls": lambda results: call_tables(results["calls"]),
    "images": lambda results: image_table(results["images"]),
}


def tables(results: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    lines = [host_line(results["host"]), "", *promise_table(results)]
    for key, section in SECTIONS.items():
        if key in results:
            lines += section(results)
    return "\n".join(lines)


def replaced(document: str, content: str) -> str:
    """Return the document with the content between its markers; ValueError without markers."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{head}{begin}\n{content}{end}{tail}"
