# SPDX-License-Identifier: Apache-2.0
"""A command in a terminal of its own, as a user at a keyboard has it."""

from __future__ import annotations

import errno
import os
import pty
import re
import select
import subprocess
import time
from typing import TYPE_CHECKING, Self

from .processes import UnmetError

if TYPE_CHECKING:
    from collections.abc import Mapping, Sequence

INTERRUPT = b"\x03"  # what Ctrl-C sends
ESCAPES = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|\x1b[()][A-Z0-9]")


class Terminal:
    """Runs a command with a pseudo terminal as its controlling terminal.

    Arguments:
        command: The command line.
        environment: The command's environment.
    """

    def __init__(self, command: Sequence[str], environment: Mapping[str, str]) -> None:
        self.master, slave = pty.openpty()
        self.text = ""
        self.child = subprocess.Popen(
            ["setsid", "--ctty", *command],
            stdin=slave,
            stdout=slave,
            stderr=slave,
            env={**environment, "TERM": "xterm", "COLUMNS": "120"},
        )
        os.close(slave)

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(self, *_: object) -> None:
        """Hang up, as closing a terminal's window does, and wait for the command."""
        os.close(self.master)
        try:
            self.child.wait(60)
        except subprocess.TimeoutExpired:
            self.child.kill()
            self.child.wait(10)
            raise

    def read(self, timeout_s: float) -> bool:
        """Take what the command printed; say whether anything came."""
        if not select.select([self.master], [], [], timeout_s)[0]:
            return False
        try:
            data = os.read(self.master, 65536)
        except OSError as error:
            if error.errno != errno.EIO:  # EIO: the command's side was closed
                raise
            return False
        self.text += ESCAPES.sub("", data.decode(errors="replace"))
        return bool(data)

    def expect(self, pattern: str, timeout_s: float = 60.0) -> re.Match[str]:
        """Return the first match of a pattern in what was printed so far.

        Raises:
            UnmetError: when it is not printed in time; with all that was.
        """
        deadline = time.monotonic() + timeout_s
        while (found := re.search(pattern, self.text)) is None:
            if time.monotonic() > deadline or (
                not self.read(0.2) and self.child.poll() is not None
            ):
                raise UnmetError(f"{pattern!r} was not printed in time, but\n{self.text}")
        return found

    def type(self, keys: bytes) -> None:
        """Press keys."""
        os.write(self.master, keys)

    def wait(self, timeout_s: float = 60.0) -> int:
        """Return the command's exit status, reading all it prints meanwhile."""
        deadline = time.monotonic() + timeout_s
        while self.child.poll() is None and time.monotonic() < deadline:
            self.read(0.1)
        while self.read(0):
            continue
        return self.child.wait(1)
