# SPDX-License-Identifier: Apache-2.0
"""Functions without a trigger port: deployed when attached, called through their channels alone."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import netplane_service_pb2
from framework.calls import PROGRAM, called, invoke, with_client
from framework.clients import call
from framework.guard import unchanged_host
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "quiet"
DEADLINE_EXCEEDED = 12
#: Lives, and neither listens nor attaches.
MUTE = "import signal\nprint('here')\nsignal.pause()\n"


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function without a port."""
    with unchanged_host(), Orchestrator() as running:
        function = called(running, ID)
        function.port = 0
        del function.keys["warmup"]
        running.write_config()
        yield running.up()


def routes(mesh: Orchestrator) -> dict[int, str]:
    """Return the ports that lead to functions."""
    request = netplane_service_pb2.ListRoutesRequest()
    listed = mesh.contracts.stub("netplane").ListRoutes(request, timeout=10).routes
    return {each.port: each.function_id for each in listed}


def test_it_is_called_and_woken_through_its_channel(mesh: Orchestrator) -> None:
    """Nothing of the host leads to it otherwise."""
    mesh.evict(ID)
    first, second = invoke(mesh, ID, b"one"), invoke(mesh, ID, b"two")
    assert (first.data, first.woke, second.data, second.woke) == (b"one", True, b"two", False)
    assert ID not in routes(mesh).values()
    assert "PORT" in mesh.must("list").out
    (listed,) = json.loads(mesh.must("-o", "json", "list").out)["functions"]
    assert not listed["spec"].get("trigger_port")
    assert "called through its channel" in mesh.must("describe", ID).out
    (counted,) = json.loads(mesh.must("-o", "json", "stats", ID).out)["functions"]
    assert (counted["connections"], counted["wakes"] > 0) == (None, True)


def test_it_is_told_of_no_port_and_listens_where_it_says(mesh: Orchestrator) -> None:
    """A listener of its own on the loopback stays there: only trigger ports are led in."""
    assert invoke(mesh, ID, method="bound").data == b"127.0.0.1 None"


def test_a_port_comes_and_goes(mesh: Orchestrator) -> None:
    """Each is a revision like others; the port is led to the function as long as it is declared."""
    (function,) = mesh.functions
    before = dict(function.keys)
    function.port = free_port()
    function.keys |= {"environment": {"HTTP": "1"}, "warmup": "http"}
    mesh.write_config()
    mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    assert call(function.port).ok
    assert routes(mesh)[function.port] == ID
    port, function.port, function.keys = function.port, 0, before
    mesh.write_config()
    mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    assert port not in routes(mesh)
    assert invoke(mesh, ID, b"again").data == b"again"


def test_one_that_never_attaches_fails_its_deploy(mesh: Orchestrator) -> None:
    """At its timeout, with its own last words; nothing of it is left."""
    handler = with_client(mesh.home / "mute")
    handler.write_text(MUTE)
    file = mesh.home / "mute.yaml"
    entry = Function("mute", handler, port=0, keys={"ipc": True, "timeout_ms": 3000}).entry()
    file.write_text(json.dumps({"functions": [entry]}))
    done = mesh.ctl("deploy", str(file), timeout_s=UP_TIMEOUT_S)
    assert done.status == DEADLINE_EXCEEDED, done.err
    for words in (
        "READY_TIMEOUT",
        "did not attach to its channel within 3000 ms",
        "client library",
    ):
        assert words in done.err
    mesh.must("delete", "mute")


def test_a_check_of_one(mesh: Orchestrator) -> None:
    """It goes the same way, without a port."""
    handler = with_client(mesh.home / "checked", PROGRAM)
    done = mesh.must("-o", "json", "check", str(handler), "--ipc", timeout_s=120)
    (outcome,) = json.loads(done.out)["checks"]
    assert outcome["report"]["restores"]
