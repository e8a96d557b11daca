# SPDX-License-Identifier: Apache-2.0
"""Connections that a program keeps to the outside: closed for the checkpoint, made again after."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

DIALER, PEER = "dialer", "peer"
RESTORES = 3


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve a program that keeps connections to another one, which is there before it."""
    with orchestrator(Function(PEER, handler("hello"))) as running:
        environment = {"PEER": str(running.functions[0].port)}
        dialer = Function(DIALER, handler("dialer"), keys={"environment": environment})
        running.functions.append(dialer)
        running.write_config()
        running.must("deploy", str(running.config), timeout_s=UP_TIMEOUT_S)
        yield running


def told(mesh: Orchestrator) -> dict[str, Any]:
    """Return what the program says of its connections."""
    answer = call(mesh.functions[1].port)
    assert answer.ok, answer
    return answer.json()


def test_a_kept_connection_is_made_again(mesh: Orchestrator) -> None:
    """The first request after each restore finds it broken; then it is kept as before."""
    for _ in range(RESTORES):
        mesh.evict(DIALER)
        first, second = told(mesh), told(mesh)
        assert (first["made"], len(first["broken"])) == (2, 1)  # one was made before the checkpoint
        assert second["made"] == 2
        assert first["peer"] == second["peer"]


def test_a_connection_that_is_made_again_at_once(mesh: Orchestrator) -> None:
    """Also one that came after the others were closed, and before the dump, ends with it."""
    mesh.evict(DIALER)
    before = told(mesh)["watched"]
    wait_until(lambda: told(mesh)["watched"] >= max(before, 2), "it is made again")
    peer = mesh.contracts.instance(PEER)
    assert peer.failed_wakes == 0


def test_the_closed_ones_are_told(mesh: Orchestrator) -> None:
    """The findings of the deploy name where they led."""
    snapshot = mesh.contracts.instance(DIALER).snapshot
    findings = mesh.contracts.snapshot(snapshot).findings
    closed = [each for each in findings if each.subject == "outbound-connection"]
    assert closed, findings
    assert all(each.remedy for each in closed)
