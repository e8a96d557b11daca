# SPDX-License-Identifier: Apache-2.0
"""A wake as a waterfall: its parts one below the other, each where it lies in time."""

from __future__ import annotations

import shutil
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_cli.plain import milliseconds

if TYPE_CHECKING:
    from aetherless.registry.v1.function_pb2 import WakeNotice

# Eighths of a character cell, from none to all of it.
EIGHTHS = " ▏▎▍▌▋▊▉█"
WIDEST = 60  # cells of a bar
NARROWEST = 20
BESIDE = 38  # cells that name and numbers take


@dataclass(frozen=True)
class Part:
    """A part of a wake, in milliseconds from its first packet."""

    name: str
    start: float
    end: float


def parts(wake: WakeNotice, first_byte: float | None) -> list[Part]:
    """Return a wake's parts in their order.

    Args:
        wake: the wake.
        first_byte: when the answer's first byte came, in milliseconds; None when it is not known.
    """
    asked = milliseconds(wake.request_latency)
    restored = asked + milliseconds(wake.restore_duration)
    opened = max(restored, milliseconds(wake.total_duration))
    found = [
        Part("hold", 0.0, asked),
        Part("restore", asked, restored),
        Part("reset" if wake.failure_reason else "replay", restored, opened),
    ]
    if first_byte is not None:
        found.append(Part("answer", min(opened, first_byte), first_byte))
    return found


def lines(shown: list[Part]) -> list[str]:
    """Return the waterfall, as wide as the terminal allows."""
    width = min(WIDEST, max(NARROWEST, shutil.get_terminal_size().columns - BESIDE))
    total = max(part.end for part in shown)
    heading = f"  {'PART':<10}{'FROM MS':>10}{'TOOK MS':>10}"
    return [heading, *(_line(part, total, width) for part in shown)]


def _line(part: Part, total: float, width: int) -> str:
    took = part.end - part.start
    text = f"  {part.name:<10}{part.start:>10.2f}{took:>10.2f}  {_bar(part, total, width)}"
    return text.rstrip()


def _bar(part: Part, total: float, width: int) -> str:
    """Return a bar that begins and ends where the part does, to an eighth of a cell."""
    scale = width / total if total else 0.0
    if not _has_blocks():
        begin, end = round(part.start * scale), round(part.end * scale)
        return " " * begin + ("#" * (end - begin) or "|")
    begin = int(part.start * scale)
    eighths = max(1, round((part.end * scale - begin) * 8))
    return " " * begin + EIGHTHS[8] * (eighths // 8) + EIGHTHS[eighths % 8].rstrip()


def _has_blocks() -> bool:
    """Tell whether the output can show them."""
    try:
        EIGHTHS.encode(sys.stdout.encoding or "ascii")
    except UnicodeEncodeError:
        return False
    return True
