# SPDX-License-Identifier: Apache-2.0
"""What an armed sandbox and the four services keep of the host's memory."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from aetherless_common.settings import SERVICES
from framework.clients import call
from framework.mesh import Function, Orchestrator
from framework.programs import handler

from .wakes import put_to_sleep

ID = "hello"
# What a memory controller has charged: cgroup v1, then v2.
CHARGED = ("/sys/fs/cgroup/memory/{}/memory.usage_in_bytes", "/sys/fs/cgroup/{}/memory.current")


def proportional_bytes(pid: int) -> int:
    """Return a process's memory with shared pages divided among those who map them (PSS)."""
    text = Path(f"/proc/{pid}/smaps_rollup").read_text()
    found = re.search(r"^Pss:\s+(\d+) kB", text, re.MULTILINE)
    return int(found.group(1)) << 10 if found else 0


def charged_bytes(group: str) -> int:
    """Return what is charged to a control group: pages, page tables, sockets, kernel objects."""
    path = next(Path(each.format(group)) for each in CHARGED if Path(each.format(group)).exists())
    return int(path.read_text())


def measure() -> dict[str, Any]:
    """Measure one armed sandbox after a wake and an eviction, and the services that made it."""
    function = Function(ID, handler("hello"))
    with Orchestrator([function]) as mesh:
        mesh.up()
        call(function.port)
        put_to_sleep(mesh, ID)
        instance = mesh.contracts.instance(ID)
        name = mesh.contracts.instance_id(ID)
        waiting = mesh.waiting_criu(name)
        return {
            "armed_charged": charged_bytes(f"{mesh.settings.cgroup_name}/{name}"),
            "init": proportional_bytes(instance.init_pid),
            "criu": proportional_bytes(waiting.pid),
            "services": {
                each: proportional_bytes(mesh.living_process(each).pid) for each in SERVICES
            },
        }
