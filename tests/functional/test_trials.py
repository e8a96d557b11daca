# SPDX-License-Identifier: Apache-2.0
"""Trial restores as a user meets them: shown by a deploy, and the limit that they are held to."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.programs import handler
from framework.traffic import Traffic

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "tried"
SHOWN = "shown"
DEADLINE_EXCEEDED = 12


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function."""
    keys = {"restore_timeout_ms": 10000}
    with orchestrator(Function(ID, handler("plain"), keys=keys)) as running:
        yield running


def test_a_deploy_shows_the_trial(mesh: Orchestrator) -> None:
    """Its progress has the figures; so have describe and its JSON. The trial served nobody."""
    function = Function(SHOWN, handler("plain"))
    mesh.functions.append(function)
    mesh.write_config()
    shown = mesh.must("deploy", str(mesh.config)).out
    (line,) = [line for line in shown.splitlines() if "restores, median" in line]
    assert "limit 2000 ms; first answer after" in line
    assert call(function.port).json()["count"] == 2  # the golden's warm-up was the first
    assert "10 restores, median" in mesh.must("describe", SHOWN).out
    described = json.loads(mesh.must("-o", "json", "describe", SHOWN).out)
    (snapshot,) = described["snapshots"]
    assert len(snapshot["trial"]["restores"]) == 10
    assert mesh.contracts.instance(SHOWN).wakes == 1


def test_a_limit_that_is_not_met(mesh: Orchestrator) -> None:
    """The deploy fails with the figures and a limit that would do; the old revision goes on."""
    function = mesh.functions[0]
    before = call(function.port).json()["token"]
    function.keys["restore_timeout_ms"] = 1
    mesh.write_config()
    with Traffic(function.port) as traffic:
        done = mesh.ctl("-o", "json", "deploy", str(mesh.config))
        traffic.go_on()
    assert traffic.failures() == []
    assert done.status == DEADLINE_EXCEEDED, done.out + done.err
    told = mesh.contracts.function(ID)
    assert told.deploy_step == "try-snapshot"
    assert told.deploy_error.reason == "RESTORE_LATENCY_VIOLATION"
    figures = dict(told.deploy_error.metadata)
    assert figures["limitMs"] == "1"
    assert 1 < float(figures["medianMs"]) <= float(figures["maxMs"]) < float(figures["suggestedMs"])
    assert call(function.port).json()["token"] == before
    assert f"{figures['suggestedMs']} ms would do" in mesh.must("describe", ID).out
