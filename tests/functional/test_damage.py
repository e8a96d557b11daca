# SPDX-License-Identifier: Apache-2.0
"""Every file of a snapshot damaged in turn: never hidden, told by name, healed by a deploy."""

from __future__ import annotations

import json
import os
import shutil
import time
from itertools import cycle
from typing import TYPE_CHECKING

import pytest

from framework.clients import Answer, call
from framework.guard import orchestrator
from framework.mesh import UP_TIMEOUT_S, Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

ID = "steady"
LIMIT_MS = 400
PATIENCE_S = 30.0
REFUSED = {"ECONNRESET", "ECONNREFUSED", "EPIPE", "ENODATA"}
# What was measured when the snapshot was made; without it the trial is repeated.
EXPENDABLE = "trial.json"


def flip(file: Path) -> None:
    """Change one byte in the middle of a file's first data."""
    number = os.open(file, os.O_RDWR)
    try:
        begin = os.lseek(number, 0, os.SEEK_DATA)
        place = begin + (os.lseek(number, begin, os.SEEK_HOLE) - begin) // 2
        (byte,) = os.pread(number, 1, place)
        os.pwrite(number, bytes([byte ^ 0xFF]), place)
    finally:
        os.close(number)


def cut(file: Path) -> None:
    """Take the second half of a file away."""
    os.truncate(file, file.stat().st_size // 2)


def remove(file: Path) -> None:
    """Take a file away."""
    file.unlink()


DAMAGES: tuple[Callable[[Path], None], ...] = (flip, cut, remove)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function for each file of its snapshot, all of the same program."""
    with orchestrator(function(0)) as running:
        count = len(snapshot_files(running, "f0"))
        running.functions += [function(number) for number in range(1, count)]
        running.write_config()
        yield running


@pytest.fixture(autouse=True)
def well(mesh: Orchestrator) -> None:
    """Begin with everything deployed and asleep."""
    heal(mesh)


def function(number: int) -> Function:
    """Return one of the functions."""
    return Function(f"f{number}", handler("plain"), keys={"restore_timeout_ms": LIMIT_MS})


def heal(mesh: Orchestrator) -> None:
    """Deploy everything again, as the errors say; all functions sleep again."""
    mesh.must("deploy", str(mesh.config), timeout_s=UP_TIMEOUT_S)
    for each in mesh.functions:
        assert call(each.port).ok, each.id
        mesh.contracts.evict(each.id)


def snapshot_folder(mesh: Orchestrator, function_id: str) -> Path:
    """Return the folder of the snapshot that a function restores."""
    name = mesh.contracts.instance(function_id).snapshot.removeprefix("snapshots/")
    return mesh.settings.snapshot_root / name


def snapshot_files(mesh: Orchestrator, function_id: str) -> list[str]:
    """Return the files of a function's snapshot, relative to its folder."""
    folder = snapshot_folder(mesh, function_id)
    return sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())


def targets(mesh: Orchestrator) -> list[tuple[Function, str, Path]]:
    """Return each function with another file of its snapshot: the name, and where it is."""
    names = snapshot_files(mesh, "f0")
    pairs = zip(mesh.functions, names, strict=True)
    found = [(each, name, snapshot_folder(mesh, each.id) / name) for each, name in pairs]
    return [each for each in found if each[2].exists()]  # what is expendable may be gone


def assert_told(mesh: Orchestrator, function: Function, name: str) -> None:
    """Check that the damage of a file is the function's error, and that nothing is restored."""
    told = f"{name} told"
    wait_until(lambda: mesh.contracts.deploy_state(function.id) == "FAILED", told, PATIENCE_S)
    error = mesh.contracts.function(function.id).deploy_error
    assert error.reason == "SNAPSHOT_CORRUPT", error
    assert error.metadata["file"] == name
    assert error.metadata["expected"] != error.metadata["actual"]
    assert call(function.port).error == "ECONNREFUSED"
    wait_until(lambda: mesh.contracts.instances(function.id) == [], "nothing left", PATIENCE_S)


def assert_recorded(mesh: Orchestrator) -> None:
    """Check that all that was told can be read afterwards."""
    shown = mesh.must("events", "-n", "-1", "-o", "json").out
    recorded = {
        each["function"]
        for each in json.loads(shown)["events"]
        if each["metadata"].get("errorReason") == "SNAPSHOT_CORRUPT"
    }
    assert len(recorded) == len(mesh.functions) - 1  # all but the one of what is expendable


def wake(function: Function) -> tuple[Answer, float]:
    """Call a function; return the answer, and after how many milliseconds it came."""
    started = time.monotonic()
    answer = call(function.port)
    return answer, (time.monotonic() - started) * 1000


@pytest.mark.parametrize("damage", DAMAGES, ids=[damage.__name__ for damage in DAMAGES])
def test_damage_while_armed(mesh: Orchestrator, damage: Callable[[Path], None]) -> None:
    """The next call is answered or reset in time, and the damage is told: no second one is."""
    for function, name, file in targets(mesh):
        damage(file)
        answer, took_ms = wake(function)
        assert answer.ok or answer.error in REFUSED, (name, answer)
        assert took_ms < LIMIT_MS + 2000
        if name != EXPENDABLE:
            assert_told(mesh, function, name)
    assert_recorded(mesh)


def test_damage_while_the_snapshotter_is_away(mesh: Orchestrator) -> None:
    """It is told as soon as the service is back, before anybody calls."""
    damaged = targets(mesh)
    supervisor = mesh.living_process("supervisor")
    supervisor.stop()
    try:
        mesh.kill("snapshotter")
        for (_, _, file), damage in zip(damaged, cycle(DAMAGES), strict=False):
            damage(file)
    finally:
        supervisor.go_on()
    mesh.wait_serving()
    for function, name, _ in damaged:
        if name != EXPENDABLE:
            assert_told(mesh, function, name)


def test_pages_cut_in_half_while_armed(mesh: Orchestrator) -> None:
    """CRIU hangs on them for ever: the deadline ends it, the client is reset, the wake is told."""
    function = mesh.functions[0]
    watch = mesh.contracts.watch_wakes(function.id)
    cut(snapshot_folder(mesh, function.id) / "images" / "pages-1.img")
    answer, took_ms = wake(function)
    assert answer.error in REFUSED
    assert took_ms < LIMIT_MS + 2000
    notice = watch.next()
    watch.close()
    assert notice.failure_reason in {"RESTORE_LATENCY_VIOLATION", "RESTORE_FAILED"}
    assert notice.failure_message
    assert_told(mesh, function, "images/pages-1.img")


def test_a_snapshot_that_is_gone(mesh: Orchestrator) -> None:
    """As after a reboot: it is made anew, as a deploy that everybody can see."""
    function = mesh.functions[0]
    shutil.rmtree(snapshot_folder(mesh, function.id))
    answer, took_ms = wake(function)
    assert answer.ok or answer.error in REFUSED
    assert took_ms < LIMIT_MS + 2000
    if answer.ok:
        mesh.contracts.evict(function.id)
    wait_until(lambda: call(function.port).ok, "it is served again", PATIENCE_S)
