# SPDX-License-Identifier: Apache-2.0
"""Masters that drop root: with a container's capabilities they do, before and after restores."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

DROPPER, NGINX = "dropper", "nginx"
WWW_DATA = 33
CONTAINER = {"capabilities": "container"}
SOME = f"{0x4FB:016x}"  # CHOWN DAC_OVERRIDE FOWNER FSETID KILL SETGID SETUID NET_BIND_SERVICE
NONE = "0" * 16


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve two programs whose workers have another user than their masters."""
    dropper = Function(DROPPER, handler("dropper"), keys=dict(CONTAINER))
    nginx = Function(NGINX, handler("nginx-container"), keys=dict(CONTAINER))
    with orchestrator(dropper, nginx) as running:
        yield running


def status(pid: int, *names: str) -> list[list[str]]:
    """Return fields of a process's status, on the host."""
    lines = (line.split() for line in Path(f"/proc/{pid}/status").read_text().splitlines())
    found = {words[0].rstrip(":"): words[1:] for words in lines if words}
    return [found[name] for name in names]


def test_a_worker_with_another_user(mesh: Orchestrator) -> None:
    """It has that user's groups, no capability left, and no way to its master's files."""
    for _ in range(2):
        mesh.evict(DROPPER)
        told = call(mesh.functions[0].port).json()
        assert told["Uid"] == told["Gid"] == [str(WWW_DATA)] * 4
        assert told["Groups"] == [str(WWW_DATA)]
        assert (told["CapPrm"], told["CapEff"], told["CapBnd"]) == ([NONE], [NONE], [SOME])
        assert told["NoNewPrivs"] == ["1"]
        assert told["secret"] is False


def whole_tree(mesh: Orchestrator, function: str, count: int) -> list[int]:
    """Return the processes of a restored function, once the restore's own have ended."""
    name = mesh.contracts.instance_id(function)

    def look() -> list[int]:
        found = [process.pid for process in mesh.tree(name)]
        return found if len(found) == count else []

    return wait_until(look, f"{function} has {count} processes")


@pytest.mark.parametrize(("index", "function", "workers"), [(0, DROPPER, 1), (1, NGINX, 2)])
def test_the_ids_on_the_host(mesh: Orchestrator, index: int, function: str, workers: int) -> None:
    """Restored, the master is the first id of the function's range, the workers another of it."""
    assert call(mesh.functions[index].port).ok
    mesh.wait_state(function, "RUNNING")
    instance = mesh.contracts.instance(function)
    tree = whole_tree(mesh, function, workers + 1)
    ids = {pid: status(pid, "Uid", "CapEff") for pid in tree}
    (master,), rights = set(ids[instance.root_pid][0]), ids[instance.root_pid][1]
    assert int(master) > 65535
    assert rights == [SOME]
    others = [each for pid, each in ids.items() if pid != instance.root_pid]
    assert others == [[[str(int(master) + WWW_DATA)] * 4, [NONE]]] * workers
