# SPDX-License-Identifier: Apache-2.0
"""Real programs, unchanged: deployed, called, evicted, restored, called by a hundred at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import burst, call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = ("hello", "plain", "keeper", "flask", "node", "go", "closer")
CROWD = 100
ID = "program"
# The snapshotter starts goldens above this, so that clones find their ids free.
FIRST_PID = 9000


@dataclass(frozen=True)
class Served:
    """One program that is deployed: its name, its orchestrator, its port."""

    name: str
    mesh: Orchestrator
    port: int

    def memory(self) -> dict[str, Any]:
        """Call the program; return what it says it remembers."""
        answer = call(self.port)
        assert answer.ok, answer
        assert answer.retransmissions == 0
        told = answer.json()
        if self.name == "hello":  # the example has names of its own
            return {"token": told["started_at"], "count": told["counter"], "pid": told["pid"]}
        return told


@pytest.fixture(scope="module", params=PROGRAMS)
def served(request: pytest.FixtureRequest) -> Iterator[Served]:
    """Deploy one program, and take everything down after its tests."""
    function = Function(ID, handler(request.param))
    with orchestrator(function) as mesh:
        yield Served(request.param, mesh, function.port)


def test_it_answers_after_a_deploy(served: Served) -> None:
    """Deployed, nothing of it runs; the first call restores it and is answered."""
    assert served.mesh.contracts.deploy_state(ID) == "DEPLOYED"
    assert served.mesh.contracts.state(ID) == "WARM_SNAPSHOT"
    assert call(served.port).ok
    served.mesh.wait_state(ID, "RUNNING")


def test_its_memory_survives(served: Served) -> None:
    """A call right after an eviction meets the memory of the snapshot, not a fresh start."""
    served.memory()
    served.mesh.evict(ID)
    first, second = served.memory(), served.memory()
    served.mesh.must("evict", ID)
    again = served.memory()
    assert {first["token"], second["token"], again["token"]} == {first["token"]}
    if served.name == "flask":  # two workers count apart
        assert again["parent"] == first["parent"] > FIRST_PID
    else:
        assert again["count"] == first["count"] == second["count"] - 1
        assert again["count"] > 1  # the warm-up before the snapshot was the first
        assert again["pid"] == first["pid"] > FIRST_PID


def test_a_restored_process_answers(served: Served) -> None:
    """What answers was restored by CRIU: its wake, its time and its processes are on record."""
    call(served.port)
    served.mesh.evict(ID)
    before = served.mesh.contracts.instance(ID)
    served.memory()
    served.mesh.wait_state(ID, "RUNNING")
    after = served.mesh.contracts.instance(ID)
    assert after.wakes == before.wakes + 1
    assert after.failed_wakes == before.failed_wakes
    assert after.last_wake.restore_duration.ToMicroseconds() > 0
    assert after.snapshot.startswith("snapshots/")
    assert after.sandbox_root_pid > FIRST_PID
    assert Path(f"/proc/{after.root_pid}/comm").exists()
    assert before.root_pid == 0


def test_a_hundred_first_calls(served: Served) -> None:
    """A hundred clients of a program that does not run: one restore, all answered, no repeats."""
    call(served.port)
    served.mesh.evict(ID)
    wakes = served.mesh.contracts.instance(ID).wakes
    answers = burst(served.port, CROWD)
    failed = [answer for answer in answers if not answer.ok]
    assert failed == []
    assert {answer.retransmissions for answer in answers} == {0}
    assert served.mesh.contracts.instance(ID).wakes == wakes + 1


def test_clients_by_every_name_of_the_host(served: Served) -> None:
    """127.0.0.1, ::1 and localhost lead to it, cold and running."""
    for host in ("127.0.0.1", "::1"):
        served.mesh.evict(ID)
        assert call(served.port, host=host).ok, host
        assert call(served.port, host=host).ok, host
    assert call(served.port, host="localhost").ok
