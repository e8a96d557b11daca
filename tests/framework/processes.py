# SPDX-License-Identifier: Apache-2.0
"""Processes as tests see them: whose pid it is, signals that can't hit a stranger, waiting."""

from __future__ import annotations

import json
import os
import select
import signal
import time
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from .hostfacts import read, stat_fields

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
POLL_S = 0.01


class UnmetError(AssertionError):
    """A condition did not come true in time."""


def wait_until(condition: Callable[[], T], what: str, timeout_s: float = 20.0) -> T:
    """Return the condition's value once it is true.

    Arguments:
        condition: Asked again and again; its last exception is shown when time runs out.
        what: What is waited for, for the message.
        timeout_s: How long to wait, in seconds.

    Raises:
        UnmetError: when it does not come true in time.
    """
    deadline = time.monotonic() + timeout_s
    while not (value := condition()):
        if time.monotonic() > deadline:
            raise UnmetError(f"{what}: not within {timeout_s} s (last value {value!r})")
        time.sleep(POLL_S)
    return value


@dataclass(frozen=True)
class Process:
    """A process known by its id and start time, so that a reused id is not taken for it.

    Arguments:
        pid: The process id on this host.
        start_time: When it started, in clock ticks since boot (field 22 of /proc/PID/stat).
    """

    pid: int
    start_time: int

    @classmethod
    def of(cls, pid: int) -> Process:
        """Return the process that has this id now; ProcessLookupError when there is none."""
        fields = stat_fields(pid)
        if not fields:
            raise ProcessLookupError(pid)
        return cls(pid, int(fields[19]))

    @classmethod
    def from_file(cls, path: Path) -> Process | None:
        """Return what a pid file names; None when there is no such file (yet)."""
        try:
            text = path.read_text()
        except FileNotFoundError:
            return None
        noted = json.loads(text or "null")
        if isinstance(noted, int):
            return cls.of(noted) if Path(f"/proc/{noted}").exists() else None
        if not noted:
            return None
        started = next((v for k, v in noted.items() if k.startswith("start")), None)
        return cls(int(noted["pid"]), int(started)) if started is not None else None

    def is_alive(self) -> bool:
        """Say whether it runs; a zombie does not."""
        fields = stat_fields(self.pid)
        return bool(fields) and int(fields[19]) == self.start_time and fields[0] not in "ZX"

    def state(self) -> str:
        """Return its state letter as /proc shows it; empty when it is gone."""
        fields = stat_fields(self.pid)
        return fields[0] if fields and int(fields[19]) == self.start_time else ""

    def send(self, number: signal.Signals) -> None:
        """Send a signal to it and nobody else; ProcessLookupError when it is gone."""
        # SAFETY: pid > 1: 0, 1 and negative ids would signal a group, init or everyone.
        if self.pid <= 1:
            raise ProcessLookupError(self.pid)
        descriptor = os.pidfd_open(self.pid)
        try:
            if not self.is_alive():
                raise ProcessLookupError(self.pid)
            signal.pidfd_send_signal(descriptor, number)
        finally:
            os.close(descriptor)

    def kill(self, timeout_s: float = 10.0) -> None:
        """End it with SIGKILL and return when it is gone."""
        # SAFETY: pid > 1, as in send.
        if self.pid <= 1:
            raise ProcessLookupError(self.pid)
        descriptor = os.pidfd_open(self.pid)
        try:
            self.send(signal.SIGKILL)
            if not select.select([descriptor], [], [], timeout_s)[0]:
                raise UnmetError(f"process {self.pid} still there {timeout_s} s after SIGKILL")
        finally:
            os.close(descriptor)

    def stop(self, timeout_s: float = 10.0) -> None:
        """Stop it with SIGSTOP and return when it has stopped."""
        self.send(signal.SIGSTOP)
        wait_until(lambda: self.state() == "T", f"process {self.pid} stopped", timeout_s)

    def go_on(self) -> None:
        """Continue it after ``stop``."""
        self.send(signal.SIGCONT)

    def command(self) -> list[str]:
        """Return its command line; empty when it is gone."""
        text = read(f"/proc/{self.pid}/cmdline") or ""
        return [part for part in text.split("\0") if part]

    def descriptor_count(self) -> int:
        """Return how many files it has open."""
        return len(list(Path(f"/proc/{self.pid}/fd").iterdir()))

    def resident_kib(self) -> int:
        """Return its resident memory, in KiB."""
        text = read(f"/proc/{self.pid}/status") or ""
        lines = (line for line in text.splitlines() if line.startswith("VmRSS:"))
        return int(next(lines, "VmRSS: 0").split()[1])


def in_group(path: Path) -> list[Process]:
    """Return the processes of a control group and the groups below it."""
    found = []
    for folder, _, names in os.walk(path):
        if "cgroup.procs" not in names:
            continue
        numbers = (read(Path(folder, "cgroup.procs")) or "").split()
        for text in numbers:
            with suppress(ProcessLookupError):  # it ended meanwhile
                found.append(Process.of(int(text)))
    return found
