# SPDX-License-Identifier: Apache-2.0
"""Live output: plain lines, a last one that a terminal rewrites, JSON lines for programs."""

from __future__ import annotations

import json
import shutil
import sys
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TextIO

from aetherless_cli.output import fitted, paint

if TYPE_CHECKING:
    from collections.abc import Iterator

# What takes longer than this, in seconds, is to be seen going on.
PATIENCE = 0.5
# How often a passing line's seconds are renewed.
TICK = 1.0
# What goes on in the next line of a terminal stands so far to the right.
INDENT = 8


class Console:
    """Where commands that take a while say what they do.

    A terminal that went away does not stop the command: what was to be removed is still removed.
    """

    def __init__(self, form: str, stream: TextIO | None = None) -> None:
        self._form = form
        self._stream = stream or sys.stdout
        self._passing = ""
        self._since = 0.0
        self._ticking = False
        self._open = True
        self._lock = threading.RLock()

    @property
    def live(self) -> bool:
        """Whether passing lines can be shown and rewritten."""
        return self._form == "table" and self._stream.isatty()

    def line(self, text: str, **data: Any) -> None:
        """Say something that stays; programs get ``data`` and the text as one JSON object."""
        with self._lock:
            if self._form == "table":
                lines = [fitted(line, self._stream, INDENT) for line in text.split("\n")]
                told = "\n".join(lines)
                self._write(f"{self._wipe()}{told}\n")
            else:
                self._write(json.dumps({**data, "text": text}) + "\n")

    def passing(self, text: str) -> None:
        """Say what is going on now, on a terminal only; the next output takes its place.

        Once it takes longer, the seconds are shown and counted.
        """
        if not self.live:
            return
        with self._lock:
            self._since = time.monotonic()
            self._show(text)
            if not self._ticking:
                self._ticking = True
                threading.Thread(target=self._tick, name="console", daemon=True).start()

    def clear(self) -> None:
        """Take the passing line away; what follows is printed by others."""
        with self._lock:
            self._write(self._wipe())

    @contextmanager
    def busy(self, text: str, patience: float = PATIENCE) -> Iterator[None]:
        """Say what the block does, on a terminal only, once it takes longer than ``patience``."""
        ended = threading.Event()

        def show() -> None:
            with self._lock:
                if not ended.is_set():
                    self.passing(text)

        timer = threading.Timer(patience, show)
        timer.daemon = True
        if self.live:
            timer.start()
        try:
            yield
        finally:
            timer.cancel()
            with self._lock:
                ended.set()
                self._write(self._wipe())

    def paint(self, text: str, code: str) -> str:
        """Return the text in a colour where there are colours."""
        return paint(text, code, self._stream) if self._form == "table" else text

    def _tick(self) -> None:
        """Count the seconds of passing lines as long as there are any."""
        while True:
            time.sleep(TICK)
            with self._lock:
                if not self._passing or not self._open:
                    self._ticking = False
                    return
                seconds = int(time.monotonic() - self._since)
                if seconds:
                    self._show(self._passing, f"  {seconds} s")

    def _show(self, text: str, more: str = "") -> None:
        """Write a passing line, cut to the terminal's width."""
        width = shutil.get_terminal_size().columns - 1 - len(more)
        self._write(f"{self._wipe()}{text[:width]}{more}")
        self._passing = text

    def _wipe(self) -> str:
        wiped = "\r\x1b[K" if self._passing else ""
        self._passing = ""
        return wiped

    def _write(self, text: str) -> None:
        if not self._open or not text:
            return
        try:
            self._stream.write(text)
            self._stream.flush()
        except OSError:
            self._open = False
