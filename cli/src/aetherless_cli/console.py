# SPDX-License-Identifier: Apache-2.0
"""Live output: plain lines, a last one that a terminal rewrites, JSON lines for programs."""

from __future__ import annotations

import json
import shutil
import sys
from typing import Any, TextIO

from aetherless_cli.output import paint


class Console:
    """Where commands that take a while say what they do.

    A terminal that went away does not stop the command: what was to be removed is still removed.
    """

    def __init__(self, form: str, stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = stream or sys.stdout
        self._passing = ""
        self._open = True

    @property
    def live(self) -> bool:
        """Whether passing lines can be shown and rewritten."""
        return self._form == "table" and self._stream.isatty()

    def line(self, text: str, **data: Any) -> None:
        """Say something that stays; programs get ``data`` and the text as one JSON object."""
        if self._form == "table":
            self._write(f"{self._wipe()}{text}\n")
        else:
            self._write(json.dumps({**data, "text": text}) + "\n")

    def passing(self, text: str) -> None:
        """Say what is going on now, on a terminal only; the next output takes its place."""
        if not self.live:
            return
        width = shutil.get_terminal_size().columns - 1
        self._write(f"{self._wipe()}{text[:width]}")
        self._passing = text

    def paint(self, text: str, code: str) -> str:
        """Return the text in a colour where there are colours."""
        return paint(text, code, self._stream) if self._form == "table" else text

    def _wipe(self) -> str:
        wiped = "\r\x1b[K" if self._passing else ""
        self._passing = ""
        return wiped

    def _write(self, text: str) -> None:
        if not self._open:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._open = False
