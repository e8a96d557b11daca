# SPDX-License-Identifier: Apache-2.0
"""Nothing is lost, nothing doubled: through redeploys, and through the short form of the soak."""

from __future__ import annotations

import secrets
import time

from framework.guard import orchestrator
from framework.ledger import Clients, Written, assert_once_each, rate_of
from framework.mesh import Function
from framework.processes import wait_until
from framework.programs import handler
from framework.upheaval import Upheaval, evict, redeploy

ID = "counted"
REDEPLOYS = 20
RATE = 500
SOAK_S = 40.0
EVICTED_S = 60.0


def counted() -> Function:
    """Return the function that writes down what it is asked."""
    return Function(ID, handler("counted"), keys={"restore_timeout_ms": 20000})


def test_twenty_redeploys_lose_and_double_nothing() -> None:
    """500 requests a second on fresh and kept connections, while the function is made anew."""
    function = counted()
    with orchestrator(function) as mesh:
        output = next(mesh.settings.state_dir.glob(f"*log*/{ID}.log"))
        began = time.monotonic()
        with Written(output) as written, Clients(function.port, RATE, fresh=12, kept=4) as clients:
            for number in range(REDEPLOYS):
                redeploy(mesh, ID, number)
        reached = rate_of(clients.ledger, began)
        summary = assert_once_each(clients.ledger, written, least=REDEPLOYS * 20)
        print(f"{reached:.0f} requests a second: {summary}")
        assert mesh.contracts.function(ID).serving_revision == REDEPLOYS + 1


def test_a_short_soak() -> None:
    """Evictions, redeploys and SIGKILLs of services at random, for a while."""
    function = counted()
    seed = secrets.randbits(32)
    with orchestrator(function) as mesh:
        upheaval = Upheaval(mesh, ID, seed)
        output = next(mesh.settings.state_dir.glob(f"*log*/{ID}.log"))
        began = time.monotonic()
        with Written(output) as written:
            with Clients(function.port, 60, breaks=True) as clients:
                while time.monotonic() - began < SOAK_S:
                    upheaval.disturb()
            wait_until(lambda: evict(mesh, ID), "nobody stands against an eviction", EVICTED_S)
        print(f"seed {seed}: {assert_once_each(clients.ledger, written, 200)}; {upheaval.done}")
