# SPDX-License-Identifier: Apache-2.0
"""Turns results into the tables of docs/benchmarks.md."""

from __future__ import annotations

from typing import Any

BEGIN, END = "<!-- results: begin -->", "<!-- results: end -->"
WAKE_ROWS = {
    "wake": "**wake**: connect to first byte, nothing running",
    "restore": "of which restore: request to CRIU to its answer",
    "request": "of which first SYN (kernel time) to request sent to CRIU",
    "fresh_start": "the same handler started fresh, start to first byte",
    "criu_command": "`criu restore` by its command line, start to first byte",
}
MODES = {"keep": "keep-alive", "new": "new connection per request"}
PROGRAMS = {"hello": "examples/hello.py", "go": "Go net/http"}


def milliseconds(value: float) -> str:
    """Return a time for the table."""
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def summary_row(label: str, summary: dict[str, float]) -> str:
    """Return a row of count, median, percentiles and extremes."""
    shown = [milliseconds(summary[k]) for k in ("p50", "p95", "p99", "minimum", "maximum")]
    return f"| {label} | {summary['count']} | {' | '.join(shown)} |"


def table_of(rows: list[str], *heads: str) -> list[str]:
    """Return a table with its head."""
    rule = "| --- |" + " ---: |" * (len(heads) - 1)
    return ["| " + " | ".join(heads) + " |", rule, *rows, ""]


def rate_row(program: str, mode: str, found: dict[str, Any]) -> str:
    """Return a row of both rates and their ratio with its spread."""
    plain, trigger, ratio = found["plain"], found["trigger"], found["ratio"]
    return (
        f"| {PROGRAMS[program]}, {MODES[mode]} | {plain['median']:.0f} | {trigger['median']:.0f} "
        f"| {ratio['median']:.1%} | {ratio['low']:.1%} to {ratio['high']:.1%} "
        f"| {milliseconds(found['plain_p99_ms'])} / {milliseconds(found['trigger_p99_ms'])} |"
    )


def promise_rows(results: dict[str, Any]) -> list[str]:
    """Return each promise with what was measured and whether it holds."""
    wakes, commands, rates = results["wakes"], results["commands"], results["throughput"]
    keep = min(found["keep"]["ratio"]["median"] for found in rates.values())
    checks = (
        ("wake, median", wakes["wake"]["p50"], 16, "ms"),
        ("first SYN to request sent, median", wakes["request"]["p50"], 0.3, "ms"),
        ("`aetherctl --help`, median", commands["help"]["p50"], 100, "ms"),
        ("`aetherctl list`, median", commands["list"]["p50"], 250, "ms"),
    )
    rows = [
        f"| {name} | ≤ {limit} {unit} | {milliseconds(value)} {unit} "
        f"| {'yes' if value <= limit else '**no**'} |"
        for name, value, limit, unit in checks
    ]
    kept = "yes" if keep >= 0.85 else "**no**"
    return [
        *rows,
        f"| keep-alive requests/s, ratio, the worse | ≥ 85 % | {keep:.1%} | {kept} |",
    ]


def tables(results: dict[str, Any]) -> str:
    """Return all tables as Markdown."""
    host = results["host"]
    timing = ("n", "p50", "p95", "p99", "min", "max")
    wakes, commands = results["wakes"], results["commands"]
    wake_rows = [summary_row(label, wakes[name]) for name, label in WAKE_ROWS.items()]
    command_rows = [summary_row(f"`aetherctl {n}`", commands[n]) for n in ("help", "list")]
    command_rows[0] = command_rows[0].replace("aetherctl help", "aetherctl --help")
    rate_rows = [
        rate_row(program, mode, found[mode])
        for program, found in results["throughput"].items()
        for mode in MODES
    ]
    lines = [
        (
            f"Measured on {host['date']}: {host['processors']} cores ({host['model']}), "
            f"{host['memory_gib']} GiB, Linux {host['kernel']}, CRIU {host['criu']}, "
            f"Python {host['python']}; commit {host['commit']}."
        ),
        "",
        *table_of(promise_rows(results), "promise", "limit", "measured", "holds"),
        f"Wakes of examples/hello.py, in milliseconds; {wakes['retransmissions']} retransmissions.",
        "",
        *table_of(wake_rows, "", *timing),
        "Commands, wall time in milliseconds.",
        "",
        *table_of(command_rows, "", *timing),
        (
            "Requests per second, 16 connections: on the host's loopback without a sandbox, and "
            "through the trigger port; medians of rounds in turn, ratio of neighbouring rounds."
        ),
        "",
        *table_of(rate_rows, "", "plain", "trigger port", "ratio", "spread", "p99 ms"),
    ]
    return "\n".join(lines)


def replaced(document: str, results: dict[str, Any]) -> str:
    """Return the document with the tables between its markers; ValueError without markers."""
    head, begin, rest = document.partition(BEGIN)
    _, end, tail = rest.partition(END)
    if not begin or not end:
        raise ValueError(f"the document has no {BEGIN} and {END}")
    return f"{head}{begin}\n{tables(results)}{end}{tail}"
