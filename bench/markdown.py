# SPDX-License-Identifier: Apache-2.0
"""Numbers and tables as Markdown."""

from __future__ import annotations


def rounded(value: float) -> str:
    """Return a number with three digits that count."""
    if value >= 100:  # digits, not a limit
        return f"{value:.0f}"
    return f"{value:.2f}" if value < 10 else f"{value:.1f}"


def row(*cells: object) -> str:
    """Return a row of a table."""
    return f"| {' | '.join(str(cell) for cell in cells)} |"


def table_of(rows: list[str], *heads: str) -> list[str]:
    """Return a table with its head."""
    return [row(*heads), "| --- |" + " ---: |" * (len(heads) - 1), *rows, ""]
