# SPDX-License-Identifier: Apache-2.0
"""What a person at a terminal sees going on: numbers, what takes long, and a second ``up``."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator, unchanged_host
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler
from framework.terminal import INTERRUPT, Terminal

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "seen"
PRECONDITION = 6


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for the tests of this module."""
    with orchestrator(Function(ID, handler("plain"))) as running:
        yield running


def test_numbers_in_place(mesh: Orchestrator) -> None:
    """The table is drawn again and again, also while a service is away; Ctrl-C ends it well."""
    mesh.must("evict", ID)
    with Terminal(mesh.command("stats", "-w", "--interval", "0.2"), mesh.environment) as terminal:
        terminal.expect(r"ID\s+REQ/S.*\n" + ID)
        assert call(mesh.functions[0].port).ok
        terminal.expect(rf"{ID}\s+[1-9][\d.]*\s+[1-9]")  # some requests, some connections per s
        mesh.kill_and_wait("netplane")
        mesh.wait_serving()
        seen = len(terminal.text)
        terminal.expect(rf"(?s)\A.{{{seen}}}.*{ID}\s+0.0")
        terminal.type(INTERRUPT)
        assert terminal.wait() == 0


def test_numbers_for_programs(mesh: Orchestrator) -> None:
    """Rates are those of the calls that were made."""
    port = mesh.functions[0].port
    arguments = ("stats", ID, "-w", "-n", "2", "--interval", "1", "-o", "json")
    with Terminal(mesh.command(*arguments), mesh.environment) as terminal:
        terminal.expect(r"\}\]\}")
        for _ in range(10):
            assert call(port).ok
        assert terminal.wait() == 0
    samples: list[Any] = [json.loads(line) for line in terminal.text.splitlines() if line]
    first, second = (sample["functions"][0] for sample in samples)
    assert first["requests_per_s"] is None
    assert 0 < second["requests_per_s"] <= 10 * 1.2
    assert second["requests"] - first["requests"] <= 10


def test_up_of_what_runs_is_a_deploy(mesh: Orchestrator) -> None:
    """What changed is a new revision, the services go on, and what the file leaves out stays."""
    supervisor = mesh.living_process("supervisor")
    before = mesh.contracts.function(ID)
    mesh.functions[0].keys["environment"] = {"COLOUR": "blue"}
    mesh.write_config()
    mesh.must("up", timeout_s=UP_TIMEOUT_S)
    after = mesh.contracts.function(ID)
    assert after.serving_revision == before.serving_revision + 1
    assert after.spec.environment["COLOUR"] == "blue"
    assert mesh.living_process("supervisor") == supervisor
    other = mesh.home / "other.yaml"
    extra = Function("extra", handler("plain"))
    other.write_text(json.dumps({"orchestrator": mesh.keys, "functions": [extra.entry()]}))
    done = mesh.ctl("-c", str(other), "up", timeout_s=UP_TIMEOUT_S)
    assert done.status == 0, done.err
    assert mesh.contracts.deploy_state(ID) == "DEPLOYED"
    assert call(extra.port).ok
    mesh.must("delete", "extra")


def test_up_with_other_settings_is_refused(mesh: Orchestrator) -> None:
    """With both values and what to do; nothing is changed."""
    before = mesh.contracts.function(ID)
    mesh.keys["warm_pool_size"] = 3
    mesh.write_config()
    try:
        for command in ("up", "deploy"):
            done = mesh.ctl(command)
            assert done.status == PRECONDITION
            assert "SETTINGS_CHANGED" in done.err
            assert "warm_pool_size 10, not 3" in done.err
    finally:
        del mesh.keys["warm_pool_size"]
        mesh.write_config()
    assert mesh.contracts.function(ID).revision == before.revision
    assert call(mesh.functions[0].port).ok


def test_what_takes_long_says_so() -> None:
    """Up, delete and down on a terminal tell what they do; elsewhere only what came of it."""
    function = Function(ID, handler("plain"))
    with unchanged_host(), Orchestrator([function]) as mesh:
        with Terminal(mesh.command("up"), mesh.environment) as terminal:
            terminal.expect("starting the services", UP_TIMEOUT_S)
            terminal.expect(rf"{ID}: create-snapshot: \S+ \.\.\.", UP_TIMEOUT_S)
            assert terminal.wait(UP_TIMEOUT_S) == 0
        # Its instance can't be reached, so that the deletion takes a while.
        snapshotter = mesh.living_process("snapshotter")
        snapshotter.stop()
        try:
            with Terminal(mesh.command("delete", ID), mesh.environment) as terminal:
                terminal.expect(f"deleting {ID}")
                terminal.expect(rf"deleting {ID}  \d+ s")
                snapshotter.go_on()
                assert terminal.wait() == 0
                assert terminal.text.rstrip().endswith(f"{ID} is deleted")
        finally:
            snapshotter.go_on()
        wait_until(lambda: not mesh.contracts.instances(), "nothing is left of it")
        with Terminal(mesh.command("down"), mesh.environment) as terminal:
            terminal.expect("ending the")
            terminal.expect("removing what the")
            assert terminal.wait() == 0
            assert terminal.text.rstrip().endswith("everything is taken down")
