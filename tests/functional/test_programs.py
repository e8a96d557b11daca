# SPDX-License-Identifier: Apache-2.0
"""Real programs, unchanged: deployed, called, evicted, restored, called by a hundred at once.

They come and go in one orchestrator, one after the other; what each leaves is looked for when it is
deleted, and what all leave when the orchestrator is down.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework import grpc_calls
from framework.clients import burst
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler, program

if TYPE_CHECKING:
    from collections.abc import Iterator

PROGRAMS = (
    *("hello", "plain", "keeper", "node", "go", "closer"),
    *("flask", "fastapi", "django", "express", "jvm", "rust", "grpc"),
    *("nginx", "nginx-container", "redis"),
)
CROWD = 100
# The snapshotter starts goldens above this, so that clones find their ids free.
FIRST_PID = 9000
NAMES_IN_HELLO = {"started_at": "token", "counter": "count"}  # the example has names of its own


def renamed(told: dict[str, Any]) -> dict[str, Any]:
    """Return an answer with the names that all programs but the example use."""
    return {NAMES_IN_HELLO.get(name, name): value for name, value in told.items()}


@dataclass(frozen=True)
class Served:
    """One program that is deployed: its name, its orchestrator, what was declared."""

    name: str
    mesh: Orchestrator
    function: Function

    def crowd(self, count: int, host: str = "127.0.0.1") -> list[dict[str, Any]]:
        """Let clients call at the same time; return what each was told, none sending twice."""
        if self.name == "grpc":
            return grpc_calls.crowd(self.function.port, count, host)
        answers = burst(self.function.port, count, host=host)
        assert [answer for answer in answers if not answer.ok or answer.retransmissions] == []
        return [renamed(answer.json()) for answer in answers]

    def memory(self, host: str = "127.0.0.1") -> dict[str, Any]:
        """Call the program; return what it remembers, without what its workers each have."""
        told = self.crowd(1, host)[0]
        varies = program(self.name).varies
        return {name: value for name, value in told.items() if name not in varies}

    def serves(self, revision: int) -> bool:
        """Tell whether a revision serves, and nothing is on its way any more."""
        function = self.mesh.contracts.function(self.name)
        deployed = self.mesh.contracts.deploy_state(self.name) == "DEPLOYED"
        return deployed and function.serving_revision == revision

    def deploy(self, **environment: str) -> None:
        """Deploy the function with an environment."""
        self.function.keys["environment"] = environment
        file = self.mesh.home / "program.yaml"
        content = {"orchestrator": self.mesh.keys, "functions": [self.function.entry()]}
        file.write_text(json.dumps(content))
        self.mesh.must("deploy", str(file), timeout_s=UP_TIMEOUT_S)

    def delete(self) -> None:
        """Delete the function, and see that nothing of it is left."""
        self.mesh.must("delete", self.name)
        assert self.mesh.contracts.instances(self.name) == []
        left = [*self.mesh.settings.snapshot_root.glob(f"*{self.name}-r*")]
        left += self.mesh.group.glob(f"{self.name}-r*")
        left += (self.mesh.settings.state_dir / "roots").glob(self.name)
        assert left == []


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve another function, beside which the programs come and go."""
    with orchestrator(Function("other", handler("plain"))) as running:
        yield running


@pytest.fixture(scope="module", params=PROGRAMS)
def served(request: pytest.FixtureRequest, mesh: Orchestrator) -> Iterator[Served]:
    """Deploy one program, and delete it after its tests."""
    name = request.param
    kind = program(name)
    function = Function(name, handler(name), memory_mb=kind.memory_mb, keys=dict(kind.keys))
    one = Served(name, mesh, function)
    one.deploy()
    yield one
    one.delete()


def test_it_answers_after_a_deploy(served: Served) -> None:
    """Deployed, nothing of it runs; the first call restores it and is answered."""
    assert served.mesh.contracts.deploy_state(served.name) == "DEPLOYED"
    assert served.mesh.contracts.state(served.name) == "WARM_SNAPSHOT"
    assert served.memory()["token"]
    served.mesh.wait_state(served.name, "RUNNING")


def test_its_memory_survives(served: Served) -> None:
    """A call right after an eviction meets the memory of the snapshot, not a fresh start."""
    served.memory()
    served.mesh.evict(served.name)
    first, second = served.memory(), served.memory()
    served.mesh.must("evict", served.name)
    again = served.memory()
    assert {first["token"], second["token"], again["token"]} == {first["token"]}
    for process in {"pid", "parent"} & set(first):
        assert again[process] == first[process] == second[process] > FIRST_PID
    if "count" in first:
        assert again["count"] == first["count"] == second["count"] - 1
        # The warm-up before the snapshot was the first, unless it only connected.
        assert again["count"] > (served.function.keys.get("warmup") != "tcp")


def test_a_restored_process_answers(served: Served) -> None:
    """What answers was restored by CRIU: its wake, its time and its processes are on record."""
    served.memory()
    served.mesh.evict(served.name)
    before = served.mesh.contracts.instance(served.name)
    served.memory()
    served.mesh.wait_state(served.name, "RUNNING")
    after = served.mesh.contracts.instance(served.name)
    assert after.wakes == before.wakes + 1
    assert after.failed_wakes == before.failed_wakes
    assert after.last_wake.restore_duration.ToMicroseconds() > 0
    assert after.snapshot.startswith("snapshots/")
    assert after.sandbox_root_pid > FIRST_PID
    assert Path(f"/proc/{after.root_pid}/comm").exists()
    assert before.root_pid == 0


def test_a_hundred_first_calls(served: Served) -> None:
    """A hundred clients of a program that does not run: one restore, all answered, no repeats."""
    served.memory()
    served.mesh.evict(served.name)
    wakes = served.mesh.contracts.instance(served.name).wakes
    assert len({told["token"] for told in served.crowd(CROWD)}) == 1
    served.mesh.wait_state(served.name, "RUNNING")
    assert served.mesh.contracts.instance(served.name).wakes == wakes + 1


def test_clients_by_every_name_of_the_host(served: Served) -> None:
    """127.0.0.1, ::1 and localhost lead to it, cold and running."""
    for host in ("127.0.0.1", "::1"):
        served.mesh.evict(served.name)
        assert served.memory(host)["token"] == served.memory(host)["token"]
    assert served.memory("localhost")["token"]


def test_a_changed_revision_and_a_rollback(served: Served) -> None:
    """A changed environment starts the program anew; a rollback leads to the old memory again."""
    old = served.memory()
    served.deploy(EDITION="2")
    assert served.mesh.contracts.function(served.name).revision == 2
    new = served.memory()
    assert new["token"] != old["token"]
    assert new.get("edition", "2") == "2"
    served.mesh.evict(served.name)
    assert served.memory()["token"] == new["token"]
    revision = served.mesh.contracts.roll_back(served.name)
    wait_until(lambda: served.serves(revision), f"revision {revision} serves")
    assert revision == 1
    again = served.memory()
    assert again["token"] == old["token"]
    assert again.get("edition") == old.get("edition")
