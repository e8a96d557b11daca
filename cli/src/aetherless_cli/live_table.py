# SPDX-License-Identifier: Apache-2.0
"""Numbers that are shown again and again: a table in place, lines, or objects for programs."""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, TextIO

from aetherless_cli.output import print_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    # Title and key of each column; the first one tells rows apart.
    Columns = Sequence[tuple[str, str]]

GAP = "  "
TIME = ("TIME", "time")
SHORTEST_ID = 8
# So that columns stand still while numbers grow.
NARROWEST = 5
UNITS = "BKMGT"
KIBI = 1024
TENTHS_BELOW = 100


class Objects:
    """One JSON object per line, or one YAML document, each time."""

    def __init__(self, form: str, key: str) -> None:
        self._form = form
        self._key = key

    def show(self, rows: Sequence[dict[str, Any]], problem: str) -> None:
        """Show the numbers."""
        now = datetime.now(UTC).isoformat(timespec="milliseconds")
        data = {"time": now, "problem": problem, self._key: list(rows)}
        if self._form == "json":
            print(json.dumps(data), flush=True)
            return
        print("---")
        print_data(data, self._form)
        sys.stdout.flush()

    def end(self) -> None:
        """Leave it at that."""


class Lines:
    """One line per function each time, for a file or a pipe."""

    def __init__(self, stream: TextIO, columns: Columns) -> None:
        self._stream = stream
        self._columns = columns
        self._widths: list[int] = []

    def show(self, rows: Sequence[dict[str, Any]], problem: str) -> None:
        """Append the numbers; the titles come first, and again when the columns grew."""
        now = datetime.now(UTC).astimezone().strftime("%H:%M:%S")
        cells = [[now, *_cells(each, self._columns)] for each in rows]
        titles = [title for title, _ in (TIME, *self._columns)]
        widths = _widths([titles, *cells], self._widths)
        if widths != self._widths:
            cells.insert(0, titles)
            self._widths = widths
        self._stream.writelines(f"{_line(each, widths, GAP, left=2)}\n" for each in cells)
        if problem:
            self._stream.write(f"{now}  {problem}\n")
        self._stream.flush()

    def end(self) -> None:
        """Leave it at that."""


class Table:
    """One table in place, no wider and no higher than the terminal."""

    def __init__(self, stream: TextIO, columns: Columns) -> None:
        self._stream = stream
        self._columns = columns
        self._height = 0

    def show(self, rows: Sequence[dict[str, Any]], problem: str) -> None:
        """Draw over what was drawn last."""
        size = shutil.get_terminal_size()
        lines = table_lines(rows, problem, *size, self._columns)
        back = f"\x1b[{self._height}F" if self._height else ""
        self._stream.write(back + "".join(f"{line}\x1b[K\n" for line in lines) + "\x1b[J")
        self._stream.flush()
        self._height = len(lines)

    def end(self) -> None:
        """Leave the last table, without the terminal's ^C below it."""
        self._stream.write("\r\x1b[K")
        self._stream.flush()


View = Objects | Lines | Table


def make_view(form: str, columns: Columns, key: str, stream: TextIO | None = None) -> View:
    """Return where the numbers are shown; ``key`` names the rows for programs."""
    out = stream or sys.stdout
    if form != "table":
        return Objects(form, key)
    return Table(out, columns) if out.isatty() else Lines(out, columns)


def table_lines(
    rows: Sequence[dict[str, Any]], problem: str, columns: int, height: int, shown: Columns
) -> list[str]:
    """Return the lines of the table of some columns on a terminal of that size."""
    titles = [title for title, _ in shown]
    # The last line of a terminal is the cursor's, one is the titles', one may tell of the rest.
    room = max(height - 3 - bool(problem), 1)
    cells = [_cells(each, shown) for each in rows[:room]]
    widths = _widths([titles, *cells], [NARROWEST] * len(titles))
    gap = GAP if sum(widths) + len(GAP) * (len(widths) - 1) < columns else " "
    spare = columns - 1 - sum(widths[1:]) - len(gap) * (len(widths) - 1)
    widths[0] = min(widths[0], max(spare, SHORTEST_ID))
    lines = [_line(each, widths, gap) for each in [titles, *cells]]
    if len(rows) > room:
        lines.append(f"and {len(rows) - room} more")
    if problem:
        lines.append(problem)
    return [line[: columns - 1] for line in lines]


def _cells(row: dict[str, Any], columns: Columns) -> list[str]:
    """Return a row's numbers as text."""
    return [_text(key, row[key]) for _, key in columns]


def _text(key: str, value: Any) -> str:
    """Return one number as text."""
    if value is None:
        return "-"
    if "bytes" in key:
        return short_size(value)
    if isinstance(value, float):
        return f"{value:.1f}" if value < TENTHS_BELOW else f"{value:.0f}"
    return str(value)


def short_size(count: float) -> str:
    """Return bytes in at most five characters: 512B, 9.1K, 120M."""
    for unit in UNITS:
        if count < KIBI or unit == UNITS[-1]:
            tenths = unit != "B" and count < TENTHS_BELOW
            return f"{count:.1f}{unit}" if tenths else f"{count:.0f}{unit}"
        count /= KIBI
    raise AssertionError(count)


def _widths(lines: Sequence[Sequence[str]], least: Sequence[int] = ()) -> list[int]:
    """Return the widths of columns; none gets narrower than it was."""
    widest = [max(len(line[index]) for line in lines) for index in range(len(lines[0]))]
    return [max(pair) for pair in zip(widest, least, strict=True)] if least else widest


def _line(cells: Sequence[str], widths: Sequence[int], gap: str, left: int = 1) -> str:
    """Return cells in columns: the first ``left`` of them to the left, numbers to the right."""
    fitted = [
        _cut(cell, width).ljust(width) if index < left else cell.rjust(width)
        for index, (cell, width) in enumerate(zip(cells, widths, strict=True))
    ]
    return gap.join(fitted).rstrip()


def _cut(text: str, width: int) -> str:
    """Return a text that fits."""
    return text if len(text) <= width else f"{text[: width - 1]}\N{HORIZONTAL ELLIPSIS}"
