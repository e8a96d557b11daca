# SPDX-License-Identifier: Apache-2.0
"""Programs that can't be checkpointed: a deploy says why and what to change, and routes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

ID = "refused"
FAILED_PRECONDITION = 6


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve a function, beside which others are refused."""
    with orchestrator(Function("other", handler("plain"))) as running:
        yield running


def deploy(mesh: Orchestrator, function: Function) -> tuple[int, dict[str, Any]]:
    """Deploy a function; return the exit status and the error."""
    file = mesh.home / "more.yaml"
    file.write_text(json.dumps({"orchestrator": mesh.keys, "functions": [function.entry()]}))
    done = mesh.ctl("-o", "json", "deploy", str(file), timeout_s=UP_TIMEOUT_S)
    error: dict[str, Any] = json.loads(done.err)["error"] if done.status else {}
    return done.status, error


def assert_nothing_is_served(mesh: Orchestrator, function: Function) -> None:
    """Its port is closed and no instance of it is there; the other function answers."""
    assert call(function.port).error == "ECONNREFUSED"
    wait_until(lambda: mesh.contracts.instances(function.id) == [], "nothing of it is left")
    assert list(mesh.settings.snapshot_root.glob(f"*{function.id}-r*")) == []
    assert call(mesh.functions[0].port).ok
    mesh.must("delete", function.id)


def test_uvloop_and_then_asyncio(mesh: Orchestrator) -> None:
    """Uvloop holds an io_uring and is named so; with asyncio's loop the same program is served."""
    function = Function(ID, handler("fastapi"), keys={"environment": {"LOOP": "uvloop"}})
    status, error = deploy(mesh, function)
    assert (status, error["reason"]) == (FAILED_PRECONDITION, "NOT_CHECKPOINTABLE")
    assert "io_uring" in error["metadata"]["cause"]
    assert "uvloop" in error["remedy"]
    assert call(function.port).error == "ECONNREFUSED"
    function.keys["environment"]["LOOP"] = "asyncio"
    assert deploy(mesh, function) == (0, {})
    assert call(function.port).json()["loop"] == "asyncio"
    mesh.must("delete", ID)


@pytest.mark.parametrize("device", ["/dev/kvm", "/dev/ptmx", "/dev/fuse"])
def test_a_device_among_the_mounts(mesh: Orchestrator, device: str) -> None:
    """A sandbox has no devices but the harmless ones; one can't be brought in either."""
    if not Path(device).exists():
        pytest.skip(f"this host has no {device}")
    function = Function(ID, handler("plain"), keys={"mounts": [device]})
    status, error = deploy(mesh, function)
    assert (status, error["reason"]) == (FAILED_PRECONDITION, "NOT_CHECKPOINTABLE")
    assert device in error["message"]
    assert error["remedy"]
    assert_nothing_is_served(mesh, function)


def test_a_terminal(mesh: Orchestrator, tmp_path: Path) -> None:
    """There is none to be had inside, and the program's own words are told."""
    program = tmp_path / "terminal.py"
    program.write_text("import pty\npty.openpty()\n")
    function = Function(ID, program)
    status, error = deploy(mesh, function)
    assert (status, error["reason"]) == (FAILED_PRECONDITION, "HANDLER_EXITED")
    assert "pty" in error["metadata"]["log"]
    assert_nothing_is_served(mesh, function)
