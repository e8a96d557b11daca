# SPDX-License-Identifier: Apache-2.0
"""Shows what a check found out: what the program holds, what to change, and the times."""

from __future__ import annotations

import shutil
import sys
import textwrap
from statistics import median
from typing import TYPE_CHECKING, Any, NamedTuple

from aetherless.registry.v1 import check_pb2
from aetherless_cli.output import paint, print_fields, size
from aetherless_cli.plain import milliseconds

if TYPE_CHECKING:
    from collections.abc import Sequence

    from aetherless_cli.checking import Outcome

WIDEST = 120
# A message gets lines of its own when less than this is left of a line.
NARROWEST = 40
INDENT = 4


class _Word(NamedTuple):
    """How a severity or a verdict is said, and in which colour."""

    text: str
    colour: str


SEVERITIES = {
    check_pb2.FINDING_SEVERITY_REFUSED: _Word("refused", "31;1"),
    check_pb2.FINDING_SEVERITY_WARNING: _Word("warning", "33"),
    check_pb2.FINDING_SEVERITY_INFO: _Word("note", "2"),
}
VERDICTS = {
    "refused": _Word("can't be checkpointed", "31;1"),
    "failed": _Word("failed", "31;1"),
    "late": _Word("is restored too late", "31;1"),
    "warnings": _Word("can be deployed; mind the warnings", "33"),
    "fine": _Word("can be deployed", "32"),
}


def show(outcome: Outcome) -> None:
    """Print one outcome."""
    word = VERDICTS[outcome.verdict]
    verdict = paint(word.text, word.colour, sys.stdout)
    where = f" in {outcome.step}" if outcome.verdict == "failed" else ""
    print(f"{outcome.spec.function_id} ({outcome.spec.handler_path}): {verdict}{where}")
    if outcome.error and not outcome.findings:
        print(f"  {outcome.error.reason}: {outcome.error.message}")
    show_findings(outcome.findings, 2)
    print_fields(figures(outcome), 2)


def show_findings(findings: Sequence[Any], indent: int) -> None:
    """Print what a program holds, as registry or snapshotter tell it, and what to change."""
    rows = [_row(each) for each in findings]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row, finding in zip(rows, findings, strict=True):
        colour = SEVERITIES[finding.severity].colour
        first = paint(row[0].ljust(widths[0]), colour, sys.stdout)
        rest = "  ".join(
            text.ljust(width) for text, width in zip(row[1:3], widths[1:], strict=True)
        )
        head = f"{' ' * indent}{first}  {rest}"
        start = beside = indent + sum(widths) + 6
        if _columns() - beside < NARROWEST:
            start = indent + INDENT
            print(head.rstrip())
        for number, line in enumerate(_wrapped(finding.message, start)):
            print(f"{head}  {line}" if number == 0 and start == beside else f"{' ' * start}{line}")
        if finding.remedy:
            _print_remedy(finding.remedy, start)


def figures(outcome: Outcome) -> dict[str, object]:
    """Return what was measured, by its name."""
    report = outcome.report
    if report is None:
        return {}
    limit = f", its limit is {outcome.limit_ms:.0f} ms" if outcome.limit_ms else ""
    return {
        "command": " ".join(report.command),
        "start": f"{milliseconds(report.start_duration):.0f} ms to its first answer",
        "checkpoint": f"{milliseconds(report.dump_duration):.0f} ms",
        "restore": f"{_times(outcome.restores)}{limit}",
        "first answer": f"{milliseconds(report.first_answer):.1f} ms from the restore's request"
        if report.HasField("first_answer")
        else None,
        "memory": f"{size(report.resident_bytes)} in {_processes(report.processes)}",
        "snapshot": f"{size(report.snapshot_bytes)} on disk",
        "suggestion": f"restore_timeout_ms: {milliseconds(report.suggested_restore_timeout):.0f}",
    }


def _row(finding: Any) -> tuple[str, str, str]:
    """Return the short columns of a finding."""
    process = f"{finding.command} ({finding.pid})" if finding.pid else "-"
    return SEVERITIES[finding.severity].text, finding.subject, process


def _print_remedy(remedy: str, start: int) -> None:
    """Print what to change."""
    for number, line in enumerate(_wrapped(remedy, start + 8)):
        print(f"{' ' * start}{'change: ' if number == 0 else ' ' * 8}{line}")


def _wrapped(text: str, start: int) -> list[str]:
    """Return a text in lines that fit beside what stands before them."""
    return textwrap.wrap(text, max(_columns() - start, NARROWEST // 2)) or [""]


def _columns() -> int:
    """Return how wide lines may be."""
    return min(shutil.get_terminal_size((WIDEST, 25)).columns, WIDEST)


def _times(restores: Sequence[float]) -> str:
    """Return the restores' percentiles."""
    if not restores:
        return "none"
    p50, longest = median(restores), max(restores)
    return f"p50 {p50:.1f} ms, max {longest:.1f} ms of {len(restores)}"


def _processes(count: int) -> str:
    """Return a number of processes in words."""
    return f"{count} process{'' if count == 1 else 'es'}"
