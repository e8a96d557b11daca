# SPDX-License-Identifier: Apache-2.0
"""Prints: tables for people, JSON and YAML for programs, errors for both."""

from __future__ import annotations

import json
import os
import shutil
import sys
import textwrap
from typing import TYPE_CHECKING, Any, TextIO

from aetherless_common.settings import SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

    from aetherless_common.errors import AetherlessError

FORMATS = ("table", "json", "yaml")
LONG_METADATA = ("log", "remedy")  # shown apart
GAP = "  "
# What goes on in the next line of a terminal stands so far to the right.
FOLD = 4
# A terminal that is narrower is written to as if it were so wide.
NARROWEST = 40


def print_data(data: Any, form: str) -> None:
    """Print plain data as JSON or YAML."""
    sys.stdout.write(_as_text(data, form))


def print_table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> None:
    """Print aligned columns, numbers to the right; folded where a terminal is too narrow."""
    cells = [list(columns), *([_cell(value) for value in row] for row in rows)]
    widths = [max(len(line[index]) for line in cells) for index in range(len(columns))]
    right = [bool(rows) and all(_numeric(row[i]) for row in rows) for i in range(len(columns))]
    for line in cells:
        padded = [
            text.rjust(width) if to_right else text.ljust(width)
            for text, width, to_right in zip(line, widths, right, strict=True)
        ]
        print(_folded(padded))


def print_fields(fields: Mapping[str, object], indent: int = 0) -> None:
    """Print name and value pairs, aligned."""
    width = max((len(name) for name in fields), default=0)
    for name, value in fields.items():
        text = f"{' ' * indent}{name.ljust(width)}{GAP}{_cell(value)}".rstrip()
        print(fitted(text, sys.stdout, indent + width + len(GAP)))


def fitted(text: str, stream: TextIO, indent: int) -> str:
    """Return a line for a stream: on a terminal in lines that fit, the later ones indented."""
    width = max(shutil.get_terminal_size().columns, NARROWEST)
    if len(text) <= width or not stream.isatty():
        return text
    lines = textwrap.wrap(
        text,
        width,
        subsequent_indent=" " * min(indent, width // 2),
        break_long_words=False,
        break_on_hyphens=False,
    )
    return "\n".join(lines)


def print_error(error: AetherlessError, form: str, stream: TextIO | None = None) -> None:
    """Print an error's reason, message and remedy; with its fields as JSON or YAML."""
    stream = stream or sys.stderr
    if form != "table":
        stream.write(_as_text({"error": error_data(error)}, form))
        return
    stream.write(f"{paint('error', '31;1', stream)}: {error.reason}: {error.message}\n")
    for problem in error_problems(error):
        remedy = f" ({problem['remedy']})" if problem.get("remedy") else ""
        stream.write(f"  {problem['text']}{remedy}\n")
    for key, value in error.metadata.items():
        if key not in LONG_METADATA and value not in error.message and not error.violations:
            stream.write(f"  {key}: {value}\n")
    if error.metadata.get("log"):
        stream.write("  last log lines:\n")
        stream.writelines(f"    {line}\n" for line in error.metadata["log"].rstrip().split("\n"))
    if remedy_of(error) and not hasattr(error, "problems"):
        stream.write(f"{paint('remedy', '32;1', stream)}: {remedy_of(error)}\n")


def print_warning(text: str, form: str) -> None:
    """Print what does not stop a command."""
    if form == "table":
        sys.stderr.write(f"{paint('warning', '33;1', sys.stderr)}: {text}\n")
    else:
        sys.stderr.write(_as_text({"warning": text}, form))


def error_data(error: AetherlessError) -> dict[str, Any]:
    """Return an error as plain data with stable field names."""
    return {
        "code": error.code,
        "reason": error.reason,
        "domain": error.domain,
        "message": error.message,
        "remedy": remedy_of(error),
        "metadata": {k: v for k, v in error.metadata.items() if k != "remedy"},
        "violations": error_problems(error),
        "exit_status": error.exit_status,
    }


def error_problems(error: AetherlessError) -> list[dict[str, Any]]:
    """Return the single problems of an error: with positions when a file has them."""
    problems = getattr(error, "problems", None)
    if problems is None:
        return [
            {"field": each.field, "problem": each.problem, "text": f"{each.field}: {each.problem}"}
            for each in error.violations
        ]
    path = error.path  # type: ignore[attr-defined] # a ConfigError: it has both
    return [
        {
            "file": str(path),
            "line": each.line,
            "column": each.column,
            "field": each.field,
            "problem": each.problem,
            "remedy": each.remedy,
            "reason": each.reason,
            "text": each.describe(path),
        }
        for each in problems
    ]


def remedy_of(error: AetherlessError) -> str:
    """Return what to do about an error: its own remedy, else the one its reason has."""
    if error.remedy:
        return error.remedy
    from aetherless_cli.reasons import remedy_for

    service = error.domain.removesuffix(".aetherless")
    if error.reason == "INTERNAL" and service in SERVICES:
        return f"see {Settings.load().log_path(service)}, and report it"
    return remedy_for(error.domain, error.reason)


def paint(text: str, code: str, stream: TextIO) -> str:
    """Return the text in a colour when it goes to a terminal that shows one."""
    if not stream.isatty() or os.environ.get("NO_COLOR") or os.environ.get("TERM") == "dumb":
        return text
    return f"\x1b[{code}m{text}\x1b[0m"


def size(count: int) -> str:
    """Return bytes for people, in mebibytes with one digit."""
    return f"{count / (1 << 20):.1f} MiB"


def _as_text(data: Any, form: str) -> str:
    if form == "json":
        return json.dumps(data, indent=2) + "\n"
    import yaml

    return str(yaml.safe_dump(data, sort_keys=False, allow_unicode=True))


def _folded(cells: Sequence[str]) -> str:
    """Return a row of a table, going on below where a terminal ends."""
    width = shutil.get_terminal_size().columns if sys.stdout.isatty() else None
    lines = [cells[0]]
    for cell in cells[1:]:
        longer = f"{lines[-1]}{GAP}{cell}"
        if width is None or len(longer) <= width:
            lines[-1] = longer
        else:
            lines.append(f"{' ' * FOLD}{cell}")
    return "\n".join(line.rstrip() for line in lines)


def _cell(value: object) -> str:
    if value is None or value == "":
        return "-"
    return f"{value:.1f}" if isinstance(value, float) else str(value)


def _numeric(value: object) -> bool:
    return value is None or isinstance(value, int | float)
