# SPDX-License-Identifier: Apache-2.0
"""Where the control group hierarchies are mounted, on pure v2 hosts and on hybrid ones."""

from __future__ import annotations

import os
from pathlib import Path

from aetherless_common.errors import FailedPrecondition

MOUNTS = Path("/proc/self/mounts")
LONGEST_LIST = 1 << 16  # bytes of a process's groups: a dozen hierarchies, a path in each
PREFERRED = (Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/unified"))


def cgroup_v2_mount(mounts: Path = MOUNTS) -> Path:
    """Return where cgroup v2 is mounted: /sys/fs/cgroup, else its ``unified``, else anywhere.

    Raises:
        FailedPrecondition: KERNEL_FEATURE_MISSING.
    """
    found = [path for path, kind, _ in _mounted(mounts) if kind == "cgroup2"]
    for path in (*PREFERRED, *found):
        if path in found:
            return path
    raise FailedPrecondition(
        "KERNEL_FEATURE_MISSING",
        "cgroup v2 is not mounted",
        {"feature": "cgroup2"},
        remedy="mount -t cgroup2 none /sys/fs/cgroup/unified, or boot with cgroup v2",
    )


def cgroup_v1_mount(controller: str, mounts: Path = MOUNTS) -> Path | None:
    """Return the v1 hierarchy of a controller (``memory``, ``pids``); None where v2 has it."""
    for path, kind, options in _mounted(mounts):
        if kind == "cgroup" and controller in options:
            return path
    return None


def cgroup_of(pid: int) -> str:
    """Return the path of a process in the v2 hierarchy, as ``/proc/<pid>/cgroup`` has it.

    Raises:
        OSError: the process is gone.
    """
    file = os.open(f"/proc/{pid}/cgroup", os.O_RDONLY | os.O_CLOEXEC)  # who attaches waits for it
    try:
        lines = os.read(file, LONGEST_LIST).splitlines()
    finally:
        os.close(file)
    for line in reversed(lines):  # it is the last one
        if line.startswith(b"0::"):
            return os.fsdecode(line[3:])
    raise FileNotFoundError(f"process {pid} is in no v2 control group")


def _mounted(mounts: Path) -> list[tuple[Path, str, list[str]]]:
    """Return (path, file system, options) of each mount; octal escapes are left as they are."""
    fields = (line.split() for line in mounts.read_text().splitlines())
    return [(Path(path), kind, options.split(",")) for _, path, kind, options, *_ in fields]
