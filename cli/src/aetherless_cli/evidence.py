# SPDX-License-Identifier: Apache-2.0
"""What the kernel itself says of a restored process, for ``aetherctl describe``."""

from __future__ import annotations

import os
import time
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from aetherless_common.proc import start_ticks

PROC = Path("/proc")


@dataclass(frozen=True)
class Evidence:
    """One process as /proc has it; times are wall-clock times in RFC 3339."""

    pid: int
    parent_pid: int
    sandbox_pid: int
    command: str
    started_at: str
    control_group: str

    def data(self) -> dict[str, Any]:
        """Return it as plain data."""
        return asdict(self)


def evidence_of(pid: int) -> Evidence | None:
    """Return what the kernel says of a process; None when it is gone or may not be read."""
    if pid <= 0:
        return None
    try:
        status = dict(
            line.split(":\t", 1)
            for line in (PROC / str(pid) / "status").read_text().splitlines()
            if ":\t" in line
        )
        command = (PROC / str(pid) / "cmdline").read_bytes().rstrip(b"\0").replace(b"\0", b" ")
        groups = (PROC / str(pid) / "cgroup").read_text().splitlines()
        return Evidence(
            pid=pid,
            parent_pid=int(status["PPid"]),
            sandbox_pid=int(status["NSpid"].split()[-1]),
            command=command.decode(errors="replace"),
            started_at=_started_at(pid),
            control_group=next(g.removeprefix("0::") for g in groups if g.startswith("0::")),
        )
    except (OSError, ProcessLookupError, KeyError, ValueError, StopIteration):
        return None


def _started_at(pid: int) -> str:
    """Return when the kernel made the process, to a clock tick."""
    age = time.clock_gettime(time.CLOCK_BOOTTIME) - start_ticks(pid) / os.sysconf("SC_CLK_TCK")
    return datetime.fromtimestamp(time.time() - age, UTC).isoformat(timespec="milliseconds")
