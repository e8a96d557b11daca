# SPDX-License-Identifier: Apache-2.0
"""What becomes of clients' connections when a revision is replaced, and of the way back."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import pytest

from framework.clients import KeptConnection, call
from framework.guard import orchestrator
from framework.ledger import Clients, Written, assert_once_each
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler
from framework.upheaval import redeploy

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "counted"
TIMEOUT_S = 3.0
# Drained once nothing was in flight for this long.
QUIET_S = 1.0
LAST_CALL_S = 1.0
SLACK_S = 20.0


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for all tests of this module."""
    keys = {"restore_timeout_ms": 20000, "timeout_ms": round(TIMEOUT_S * 1000)}
    with orchestrator(Function(ID, handler("counted"), keys=keys)) as running:
        yield running


@pytest.fixture
def port(mesh: Orchestrator) -> int:
    """Return the function's port, once nothing drains any more."""
    wait_until(lambda: len(instances(mesh)) == 1, "nothing drains", 60)
    return mesh.functions[0].port


def instances(mesh: Orchestrator) -> list[str]:
    """Return the ids of the instances there are."""
    return [
        each.instance.removeprefix("instances/") for each in mesh.contracts.function(ID).instances
    ]


def serving(mesh: Orchestrator) -> int:
    """Return the revision that serves."""
    return int(mesh.contracts.function(ID).serving_revision)


def test_an_idle_connection_reads_its_end(mesh: Orchestrator, port: int) -> None:
    """The client of the replaced revision is told by a FIN, and its next connection is answered."""
    kept = KeptConnection(port)
    assert kept.request("/").ok
    redeploy(mesh, ID, 1)
    assert kept.client.recv(1) == b""
    kept.close()
    assert call(port, "/").ok


def test_a_connection_in_use_goes_on_until_its_bound(mesh: Orchestrator, port: int) -> None:
    """It is answered by the old revision all the while, and then ends without half an answer."""
    old = serving(mesh)
    kept = KeptConnection(port)
    assert kept.request("/").ok
    redeploy(mesh, ID, 2)
    switched = time.monotonic()
    answered, lasted = 0, 0.0
    while lasted < TIMEOUT_S + QUIET_S + LAST_CALL_S + SLACK_S:
        try:
            assert kept.request("/").ok
        except ConnectionError:
            break
        answered, lasted = answered + 1, time.monotonic() - switched
    assert TIMEOUT_S < lasted < TIMEOUT_S + QUIET_S + LAST_CALL_S + SLACK_S, (answered, lasted)
    wait_until(lambda: instances(mesh) == [f"{ID}-r{old + 1}-0"], "the old one is gone")
    assert call(port, "/").ok


def test_connections_that_are_ended_in_use_double_nothing(mesh: Orchestrator, port: int) -> None:
    """What was not answered on one was not worked on either: asked again, it is done once."""
    output = next(mesh.settings.state_dir.glob(f"*log*/{ID}.log"))
    with Written(output) as written, Clients(port, 200, fresh=2, kept=4) as clients:
        for number in range(3, 6):
            redeploy(mesh, ID, number)
            wait_until(lambda: len(instances(mesh)) == 1, "the old one is gone", 60)
    assert assert_once_each(clients.ledger, written, least=500)
    assert clients.ledger.broken >= 4
