# SPDX-License-Identifier: Apache-2.0
"""Handlers that can't be served, snapshots that can't be restored: typed errors, nothing left."""

from __future__ import annotations

import errno
import json
import os
import socket
import time
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshotter_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S, refused
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "steady"
BAD = "bad"
LIMIT_MS = 400
INVALID, FAILED_PRECONDITION = 3, 6
REFUSED = {"ECONNRESET", "ECONNREFUSED"}


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function, beside which others fail."""
    steady = Function(ID, handler("plain"), keys={"restore_timeout_ms": LIMIT_MS})
    with orchestrator(steady) as running:
        yield running


@pytest.fixture
def port(mesh: Orchestrator) -> int:
    """Return the steady function's port, once it answered and was evicted."""
    port = mesh.functions[0].port
    assert call(port).ok
    mesh.evict(ID)
    return port


def deploy(mesh: Orchestrator, function: Function) -> tuple[int, dict[str, str]]:
    """Deploy a function beside the steady one; return the exit status and the error."""
    file = mesh.home / "more.yaml"
    file.write_text(json.dumps({"functions": [function.entry()]}))
    done = mesh.ctl("-o", "json", "deploy", str(file))
    error: dict[str, str] = json.loads(done.err)["error"] if done.status else {}
    return done.status, error


def test_a_taken_port_is_refused(mesh: Orchestrator, port: int) -> None:
    """A deploy names the process that has the port; once it is free the same deploy works."""
    function = Function(BAD, handler("plain"))
    with socket.create_server(("127.0.0.1", function.port)):
        exit_status, error = deploy(mesh, function)
        assert (exit_status, error["reason"]) == (FAILED_PRECONDITION, "PORT_IN_USE")
        found = mesh.contracts.function(BAD).deploy_error
        assert found.metadata["pid"] == str(os.getpid())
        assert found.metadata["port"] == str(function.port)
        assert found.metadata["process"]
    exit_status, error = deploy(mesh, function)
    assert exit_status == 0, error
    assert call(function.port).ok
    mesh.must("delete", BAD)
    wait_until(lambda: call(function.port).error == "ECONNREFUSED", "the port is free again")


def test_two_functions_with_one_port(mesh: Orchestrator, port: int) -> None:
    """In one file the second one's line is told; of a port that is served, whose it is."""
    twin = Function("twin", handler("plain"), port=port)
    exit_status, error = deploy(mesh, twin)
    assert (exit_status, error["reason"]) == (FAILED_PRECONDITION, "PORT_IN_USE")
    metadata: Any = error["metadata"]
    assert (metadata["port"], metadata["function"]) == (str(port), ID)
    file = mesh.home / "twins.yaml"
    pair = [mesh.functions[0].entry(), twin.entry()]
    file.write_text(json.dumps({"functions": pair}, indent=1))
    done = mesh.ctl("-o", "json", "deploy", str(file))
    assert (done.status, json.loads(done.err)["error"]["reason"]) == (INVALID, "CONFIG_INVALID")
    assert f"{port} is also trigger_port of" in done.err
    assert {each.workload.function_id for each in mesh.contracts.instances()} == {ID}
    assert call(port).ok


MALFORMED = {
    "no-yaml": "functions: [",
    "no-mapping": "- a\n",
    "nothing": "",
    "another-encoding": "functions: [{id: \xe9}]",
    "a-tag": "functions: !!python/object/apply:os.system [true]\n",
    "an-unknown-key": "surprise: 1\nfunctions: []\n",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file(mesh: Orchestrator, port: int, name: str) -> None:
    """It is refused by type, with its place, and what serves goes on serving as it was."""
    file = mesh.home / "malformed.yaml"
    file.write_bytes(MALFORMED[name].encode("latin-1"))
    revision = mesh.contracts.function(ID).revision
    for command in ("deploy", "validate"):
        done = mesh.ctl("-o", "json", command, str(file))
        assert done.status == INVALID, (command, done)
        error = json.loads(done.err)["error"]
        assert (error["reason"], error["metadata"]["path"]) == ("CONFIG_INVALID", str(file))
        assert error["remedy"]
    assert mesh.contracts.function(ID).revision == revision
    assert call(port).ok


def test_the_port_is_reserved(mesh: Orchestrator, port: int) -> None:
    """While a function is deployed nobody else can listen on its port."""
    with pytest.raises(OSError, match="in use") as raised, socket.create_server(("", port)):
        pytest.fail("somebody else could listen on a trigger port")
    assert raised.value.errno == errno.EADDRINUSE


def test_a_late_restore_resets_its_client(mesh: Orchestrator, port: int) -> None:
    """CRIU is held up beyond the limit: reset in time, reported with both numbers, then well."""
    watch = mesh.contracts.watch_wakes(ID)
    instance = mesh.contracts.instance_id(ID)
    mesh.waiting_criu(instance).stop()
    started = time.monotonic()
    answer = call(port)
    took_ms = (time.monotonic() - started) * 1000
    assert answer.error in REFUSED
    assert LIMIT_MS <= took_ms < LIMIT_MS + 1000
    notice = watch.next()
    watch.close()
    assert notice.failure_reason == "RESTORE_LATENCY_VIOLATION"
    assert str(LIMIT_MS) in notice.failure_message
    assert notice.restore_duration.ToMilliseconds() >= LIMIT_MS
    following = call(port)
    assert following.ok, following
    assert mesh.contracts.instance(ID).failed_wakes >= 1


def damage(file: Path) -> bytes:
    """Change one byte in the middle of a file; return what it held."""
    content = file.read_bytes()
    middle = len(content) // 2
    file.write_bytes(content[:middle] + bytes([content[middle] ^ 0xFF]) + content[middle + 1 :])
    return content


def largest_image(mesh: Orchestrator) -> Path:
    """Return the largest image of the steady function's snapshot: its memory."""
    folder = mesh.settings.snapshot_root
    images = [path for path in folder.rglob("*.img") if f"{ID}-r" in str(path)]
    return max(images, key=lambda path: path.stat().st_size)


def test_a_damaged_snapshot_is_not_taken_into_use(mesh: Orchestrator, port: int) -> None:
    """One changed byte: a new sandbox for the snapshot is refused, with file and checksums."""
    file = largest_image(mesh)
    stub = mesh.contracts.stub("snapshotter")
    present = mesh.contracts.instance(ID)
    request = snapshotter_service_pb2.CreateInstanceRequest(
        instance_id="damaged",
        workload=present.workload,
        role=instance_pb2.INSTANCE_ROLE_CLONE,
        snapshot=present.snapshot,
    )
    content = damage(file)
    try:
        with refused("snapshotter") as refusal:
            stub.CreateInstance(request, timeout=RPC_TIMEOUT_S)
    finally:
        file.write_bytes(content)
    assert (refusal.reason, refusal.code) == ("SNAPSHOT_CORRUPT", "DATA_LOSS")
    assert file.name in refusal.metadata["file"]
    assert refusal.metadata["expected"] != refusal.metadata["actual"]
    assert [i for i in mesh.contracts.instances() if i.name == "instances/damaged"] == []
    assert call(port).ok


def test_too_much_memory_ends_the_function(mesh: Orchestrator, port: int) -> None:
    """A function that eats more than its limit is ended as a whole; its next call restores it."""
    function = Function("glutton", handler("probe"), memory_mb=96)
    exit_status, error = deploy(mesh, function)
    assert exit_status == 0, error
    assert call(function.port, "/eat?mb=16").json()["outcome"] == "reached"
    answer = call(function.port, "/eat?mb=300")
    assert answer.error or answer.json()["outcome"] == "denied"
    wait_until(lambda: call(function.port).ok, "it answers again")
    mesh.must("delete", function.id)
