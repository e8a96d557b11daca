# SPDX-License-Identifier: Apache-2.0
"""Processes told apart by pid and start time, and signals that can't hit the wrong one."""

from __future__ import annotations

import json
import os
import select
import signal
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aetherless_common.settings import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

from contextlib import contextmanager


def start_ticks(pid: int) -> int:
    """Return when a process was started, in clock ticks since boot (proc(5), stat field 22).

    Raises:
        ProcessLookupError: there is no such process, or it is a zombie.
    """
    try:
        text = Path(f"/proc/{pid}/stat").read_text()
    except (FileNotFoundError, ProcessLookupError) as error:
        raise ProcessLookupError(pid) from error
    state, *fields = text.rpartition(")")[2].split()
    if state in "ZX":
        raise ProcessLookupError(pid)
    return int(fields[18])


@dataclass(frozen=True, slots=True)
class ProcessRef:
    """One process, not merely a number that may be given to another later."""

    pid: int
    start_ticks: int

    @classmethod
    def of(cls, pid: int) -> Self:
        """Return the reference to a living process.

        Raises:
            ProcessLookupError: there is no such process.
        """
        return cls(pid, start_ticks(pid))

    @classmethod
    def read(cls, path: Path) -> Self | None:
        """Return the reference stored in a pid file; None when there is no usable file."""
        try:
            stored = json.loads(path.read_text())
            return cls(int(stored["pid"]), int(stored["start_ticks"]))
        except (FileNotFoundError, ValueError, KeyError, TypeError):
            return None

    def write(self, path: Path) -> None:
        """Store the reference in a pid file."""
        write_atomically(path, json.dumps(asdict(self)) + "\n")

    def alive(self) -> bool:
        """Tell whether this very process lives (a zombie does not)."""
        try:
            return start_ticks(self.pid) == self.start_ticks
        except ProcessLookupError:
            return False

    def signal(self, number: signal.Signals) -> bool:
        """Send a signal to this very process; False when it is gone.

        Raises:
            ValueError: the pid is 1 or less.
        """
        with self._opened() as descriptor:
            if descriptor is None:
                return False
            # SAFETY: pid > 1 (_opened), and the descriptor names this process, not its number.
            try:
                signal.pidfd_send_signal(descriptor, number)
            except ProcessLookupError:
                return False
            return True

    def wait(self, timeout: float) -> bool:
        """Wait until the process has ended, at most ``timeout`` seconds; tell whether it has."""
        with self._opened() as descriptor:
            if descriptor is None:
                return True
            return bool(select.select([descriptor], [], [], timeout)[0])

    @contextmanager
    def _opened(self) -> Iterator[int | None]:
        """Give a pidfd that was checked to be this process, or None when it is gone."""
        # SAFETY: 0, -1 and other negative numbers mean many processes to kill(2), and 1 is init.
        if self.pid <= 1:
            raise ValueError(f"refusing to touch process {self.pid}")
        try:
            descriptor = os.pidfd_open(self.pid)
        except ProcessLookupError:
            yield None
            return
        try:
            yield descriptor if self.alive() else None
        finally:
            os.close(descriptor)
