# SPDX-License-Identifier: Apache-2.0
"""Functions that want too much while they serve, and a store that is full: bounded, told, over."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import registry_service_pb2
from framework.clients import call
from framework.guard import orchestrator, unchanged_host
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

MIB = 1 << 20
LOG_CAP = 16 * MIB
# A log is cut many times a second: what a flood writes meanwhile on a busy host.
LOG_SLACK = 600 * MIB
ENDED = {"ECONNRESET", "ECONNREFUSED", "EPIPE", "ENODATA"}
PRECONDITION, EXHAUSTED = 6, 8
PATIENCE_S = 30.0


def faulty(name: str, memory_mb: int = 128, fault: str = "") -> Function:
    """Return a function that has the fault which a request names."""
    keys = {"restore_timeout_ms": 10000, "environment": {"FAULT": fault}}
    return Function(name, handler("bad/faulty"), memory_mb=memory_mb, keys=keys)


GREEDY, FULL, FLOOD, BOMB, BUSY, DEAF, FORKS = (
    faulty("greedy", 96),
    faulty("full", 64),
    faulty("flood"),
    faulty("bomb", 2048),
    faulty("busy", 512),
    faulty("deaf", fault="ignores_sigterm_later"),
    faulty("forks"),
)
BESIDE = Function("beside", handler("plain"), keys={"restore_timeout_ms": 10000})


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve them all."""
    with orchestrator(GREEDY, FULL, FLOOD, BOMB, BUSY, DEAF, FORKS, BESIDE) as running:
        yield running


@pytest.fixture(autouse=True)
def unharmed(mesh: Orchestrator) -> Iterator[None]:
    """Whatever one function does, another one beside it is served."""
    yield
    assert call(BESIDE.port).ok


def events(mesh: Orchestrator, function: str) -> list[dict[str, Any]]:
    """Return what is recorded of a function."""
    shown = mesh.must("events", function, "-n", "-1", "-o", "json").out
    found: list[dict[str, Any]] = json.loads(shown)["events"]
    return found


def test_memory_beyond_the_limit(mesh: Orchestrator) -> None:
    """The tree is gone, the client reset, the cause recorded; the next call has a new instance."""
    assert call(GREEDY.port).ok
    root = mesh.contracts.instance("greedy").root_pid
    assert call(GREEDY.port, "/eat").error in ENDED

    def told() -> list[dict[str, Any]]:
        return [e for e in events(mesh, "greedy") if e["reason"] == "MEMORY_LIMIT_EXCEEDED"]

    wait_until(told, "the cause is recorded", PATIENCE_S)
    assert told()[-1]["metadata"]["limitBytes"] == str(96 * MIB)
    wait_until(lambda: call(GREEDY.port).ok, "the next call is served", PATIENCE_S)
    assert mesh.contracts.instance("greedy").root_pid != root


def test_memory_of_a_child_beyond_the_limit(mesh: Orchestrator) -> None:
    """The tree goes as a whole, also when the kernel ended a child of it."""
    assert call(GREEDY.port).ok
    assert call(GREEDY.port, "/eats_in_a_child").error in ENDED
    wait_until(lambda: call(GREEDY.port).ok, "the next call is served", PATIENCE_S)
    instance = mesh.contracts.instance_id("greedy")
    wait_until(lambda: len(mesh.tree(instance)) == 1, "one process is left: the new one's")


def test_a_full_tmp(mesh: Orchestrator) -> None:
    """The program sees ENOSPC at half of its memory; its next instance has an empty one."""
    for _ in range(2):
        assert call(FULL.port, "/fills_tmp").ok
        mesh.evict("full")
    log = mesh.must("logs", "full").out
    said = [line for line in log.splitlines() if "No space left on device" in line]
    assert len(said) == 2
    for line in said:
        assert 28 * MIB <= int(line.split()[1]) <= 32 * MIB


def test_a_gigabyte_of_log(mesh: Orchestrator) -> None:
    """The writer is not held up; the log is cut to its cap, with one older generation."""
    log = next(mesh.settings.state_dir.glob("*log*/flood.log"))
    highest = 0

    def size() -> int:
        return sum(file.stat().st_size for file in log.parent.glob("flood.log*"))

    reader, writer = os.pipe()
    client = subprocess.Popen(
        [
            "curl",
            "-s",
            "-m",
            "60",
            f"http://127.0.0.1:{FLOOD.port}/floods_the_log",
            "-w",
            "%{http_code}",
        ],
        stdout=writer,
    )
    os.close(writer)
    with client:
        while client.poll() is None:
            highest = max(highest, size())
    assert os.read(reader, 100) == b"200"
    os.close(reader)
    assert highest < 2 * LOG_CAP + LOG_SLACK
    wait_until(lambda: size() <= 2 * LOG_CAP, "it is cut")
    assert call(FLOOD.port).ok


@pytest.mark.parametrize(
    ("function", "fault", "many"), [(BOMB, "bombs", 300), (BUSY, "spins_in_sessions", 20)]
)
def test_a_fork_bomb(mesh: Orchestrator, function: Function, fault: str, many: int) -> None:
    """Those beside it and the services go on meanwhile; when it is deleted all of it is gone."""
    mesh.evict("beside")
    assert call(function.port).ok
    instance = mesh.contracts.instance_id(function.id)
    with ended_in_the_end(mesh.group / instance / "tree"):
        assert call(function.port, f"/{fault}", timeout_s=1).error
        wait_until(lambda: len(mesh.tree(instance)) > many, "it forks", PATIENCE_S)
        woken = call(BESIDE.port, timeout_s=PATIENCE_S)
        assert woken.ok, woken
        assert mesh.contracts.state(function.id) == "RUNNING"
        # Not by a command: no new program is sure to start while the kernel is busy with forks.
        request = registry_service_pb2.DeleteFunctionRequest(name=f"functions/{function.id}")
        mesh.contracts.stub("registry").DeleteFunction(request, timeout=UP_TIMEOUT_S)
        wait_until(
            lambda: mesh.contracts.instances(function.id) == [], "it is deleted", UP_TIMEOUT_S
        )
        assert mesh.tree(instance) == []
    assert call(function.port).error == "ECONNREFUSED"


@contextlib.contextmanager
def ended_in_the_end(group: Path) -> Iterator[None]:
    """End all that is in a group of ours when the block ends, however it does."""
    try:
        yield
    finally:
        with contextlib.suppress(FileNotFoundError):
            (group / "cgroup.kill").write_text("1")


def test_a_server_that_forks_and_ends(mesh: Orchestrator) -> None:
    """What it left behind goes with it, and the next call has a new instance."""
    assert call(FORKS.port).ok
    instance = mesh.contracts.instance_id("forks")
    before = {process.pid for process in mesh.tree(instance)}
    assert call(FORKS.port, "/forks_and_ends").error in ENDED
    wait_until(lambda: call(FORKS.port).ok, "the next call is served", PATIENCE_S)
    wait_until(lambda: len(mesh.tree(instance)) == 1, "one process is left: the new one's")
    assert before.isdisjoint(process.pid for process in mesh.tree(instance))


def test_a_server_that_ends_at_its_process_limit(mesh: Orchestrator) -> None:
    """The cause is recorded; an end without it, of the next instance, is one like others."""

    def told(reason: str) -> list[dict[str, Any]]:
        return [each for each in events(mesh, "forks") if each["reason"] == reason]

    assert call(FORKS.port).ok
    assert call(FORKS.port, "/ends_at_its_process_limit").error in ENDED
    wait_until(lambda: told("PROCESS_LIMIT_EXCEEDED"), "the cause is recorded", PATIENCE_S)
    (event,) = told("PROCESS_LIMIT_EXCEEDED")
    assert (event["metadata"]["limit"], event["metadata"]["status"]) == ("1024", "3")
    exited = len(told("HANDLER_EXITED"))
    wait_until(lambda: call(FORKS.port).ok, "the next call is served", PATIENCE_S)
    assert call(FORKS.port, "/forks_and_ends").error in ENDED
    wait_until(lambda: len(told("HANDLER_EXITED")) > exited, "it is recorded", PATIENCE_S)
    assert len(told("PROCESS_LIMIT_EXCEEDED")) == 1


def test_a_handler_that_ignores_signals(mesh: Orchestrator) -> None:
    """Nothing is asked of it: it is evicted and deleted as any other."""
    assert call(DEAF.port).ok
    mesh.evict("deaf")
    assert call(DEAF.port).ok
    mesh.must("delete", "deaf")
    assert mesh.contracts.instances("deaf") == []


@contextlib.contextmanager
def mounted(place: Path, kind: str, options: str = "") -> Iterator[Path]:
    """Mount a file system in memory on a folder that is made."""
    place.mkdir()
    named = ["-o", options] if options else []
    subprocess.run(["mount", "-t", kind, *named, "test", str(place)], timeout=10, check=True)
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], timeout=10, check=True)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder whose file system has room for the host's trial, and not for much more."""
    with mounted(tmp_path / "small", "tmpfs", "size=64m") as place:
        yield place


def test_a_full_snapshot_folder(mesh: Orchestrator, small: Path) -> None:
    """The deploy says where, how much and what to do; what serves goes on; nothing is left."""
    first = Function("first", handler("plain"))
    with unchanged_host(), Orchestrator([first], snapshot_dir=str(small / "snapshots")) as tight:
        tight.up()
        assert call(first.port).ok
        (small / "ballast").write_bytes(b"x" * (os.statvfs(small).f_bavail * 4096 - 3 * MIB))
        second = Function("second", handler("plain"))
        tight.functions.append(second)
        tight.write_config()
        done = tight.ctl("-o", "json", "deploy", str(tight.config), timeout_s=UP_TIMEOUT_S)
        error = json.loads(done.err)["error"]
        assert (done.status, error["reason"]) == (EXHAUSTED, "STORAGE_FULL"), error
        assert error["metadata"]["path"].startswith(str(small))
        needed, free = (int(error["metadata"][key]) for key in ("neededBytes", "freeBytes"))
        assert needed > free
        assert "snapshot_dir" in error["remedy"]
        assert call(second.port).error == "ECONNREFUSED"
        assert list(tight.settings.snapshot_root.glob("*second*")) == []
        assert list(tight.settings.snapshot_root.glob(".tmp-*")) == []
        tight.evict("first")
        assert call(first.port).ok
        (small / "ballast").unlink()
        tight.must("deploy", str(tight.config), timeout_s=UP_TIMEOUT_S)
        assert call(second.port).ok


def test_a_snapshot_folder_without_holes(tmp_path: Path) -> None:
    """A file system that can't punch them is refused before anything is served."""
    with mounted(tmp_path / "plain", "ramfs") as place, unchanged_host():
        unfit = Orchestrator([Function("first", handler("plain"))], snapshot_dir=str(place))
        with unfit:
            done = unfit.ctl("-o", "json", "up", timeout_s=UP_TIMEOUT_S)
            error = json.loads(done.err)["error"]
            assert (done.status, error["reason"]) == (PRECONDITION, "HOST_NOT_READY"), error
            assert "punch holes" in done.out
            assert "orchestrator.snapshot_dir" in done.out
