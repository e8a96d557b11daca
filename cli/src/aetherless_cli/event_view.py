# SPDX-License-Identifier: Apache-2.0
"""Shows events: aligned lines for people, objects for programs."""

from __future__ import annotations

import json
import shutil
import sys
import textwrap
from datetime import UTC, datetime
from typing import TYPE_CHECKING, TextIO

from aetherless.registry.v1 import event_pb2
from aetherless_cli.output import paint, print_data
from aetherless_cli.plain import enum_word, to_plain

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

HEADINGS = ("TIME", "SEVERITY", "FUNCTION", "REASON", "MESSAGE")
# Columns grow with what was listed; what comes later is to fit into these.
LEAST = (12, 8, 8, 14)
GAP = "  "
# A message gets a line of its own when less than this is left of a terminal's line.
NARROWEST = 40
INDENT = 4
COLOURS = {event_pb2.EVENT_SEVERITY_WARNING: "33;1"}


class EventView:
    """Where events are shown.

    Args:
        form: ``table``, ``json`` or ``yaml``.
        events: what is shown first; the columns are as wide as these need.
        stream: where to; by default the standard output.
    """

    def __init__(
        self, form: str, events: Iterable[event_pb2.Event], stream: TextIO | None = None
    ) -> None:
        self._form = form
        self._stream = stream or sys.stdout
        rows = [HEADINGS, *(_row(each) for each in events)]
        self._widths = [
            max(least, *(len(row[index]) for row in rows)) for index, least in enumerate(LEAST)
        ]

    def show_all(self, events: Sequence[event_pb2.Event], *, follow: bool) -> None:
        """Show a list; with ``follow`` as a beginning."""
        if self._form != "table" and not follow:
            print_data({"events": [to_plain(each) for each in events]}, self._form)
            return
        if self._form == "table" and (events or follow):
            self._write(self._joined(HEADINGS))
        elif self._form == "table":
            self.note("there are no such events")
        for each in events:
            self.show(each)

    def show(self, event: event_pb2.Event) -> None:
        """Show one event."""
        if self._form == "json":
            self._write(json.dumps(to_plain(event)))
        elif self._form == "yaml":
            sys.stdout.write("---\n")
            print_data(to_plain(event), self._form)
        else:
            self._show_line(event)

    def note(self, text: str) -> None:
        """Say what is no event, on the standard error."""
        sys.stderr.write(
            f"-- {text}\n" if self._form == "table" else json.dumps({"note": text}) + "\n"
        )

    def end(self) -> None:
        """Leave nothing of a terminal's ^C."""
        if self._stream.isatty():
            self._stream.write("\r\x1b[K")
            self._stream.flush()

    def _show_line(self, event: event_pb2.Event) -> None:
        """Show one event in aligned columns, or two lines where a terminal is narrow."""
        *cells, message = _row(event)
        head = self._joined(cells)
        colour = COLOURS.get(event.severity, "")
        for number, line in enumerate(self._laid_out(head, message)):
            first = number == 0 and line.startswith(head)
            text = self._painted(head, colour) + line[len(head) :] if first else line
            self._write(text)

    def _laid_out(self, head: str, message: str) -> list[str]:
        """Return the lines of an event; one when it goes to a file or fits."""
        line = f"{head}{GAP}{message}"
        if not self._stream.isatty():
            return [line]
        width = shutil.get_terminal_size().columns
        indent = len(head) + len(GAP)
        if len(line) <= width:
            return [line]
        if width - indent >= NARROWEST:
            wrapped = textwrap.wrap(message, width - indent) or [""]
            return [f"{head}{GAP}{wrapped[0]}", *(" " * indent + each for each in wrapped[1:])]
        wrapped = textwrap.wrap(message, max(width - INDENT, 1))
        return [head.rstrip(), *(" " * INDENT + each for each in wrapped)]

    def _painted(self, head: str, colour: str) -> str:
        return paint(head, colour, self._stream) if colour else head

    def _joined(self, cells: Sequence[str]) -> str:
        """Return cells in their columns."""
        fitted = [cell.ljust(width) for cell, width in zip(cells, self._widths, strict=False)]
        return GAP.join([*fitted, *cells[len(fitted) :]])

    def _write(self, text: str) -> None:
        self._stream.write(f"{text.rstrip()}\n")
        self._stream.flush()


def _row(event: event_pb2.Event) -> tuple[str, ...]:
    """Return an event's cells."""
    return (
        _time(event),
        enum_word(event, "severity").lower(),
        event.function.removeprefix("functions/") or "-",
        event.reason,
        " ".join(event.message.split()),
    )


def _time(event: event_pb2.Event) -> str:
    """Return when it happened: the time of today, else the day as well."""
    moment = event.time.ToDatetime(UTC).astimezone()
    if moment.date() == datetime.now(UTC).astimezone().date():
        return moment.strftime("%H:%M:%S.%f")[:-3]
    return moment.strftime("%Y-%m-%d %H:%M:%S")
