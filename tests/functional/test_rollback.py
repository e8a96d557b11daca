# SPDX-License-Identifier: Apache-2.0
"""Going back to an earlier revision with a real program: its files, its memory, its snapshot."""

from __future__ import annotations

import json
import shutil
from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "versioned"


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder with the program, which a test may edit."""
    place = tmp_path / "app"
    shutil.copytree(handler("versioned").parent, place)
    (place / "version").write_text("one")
    return place


@pytest.fixture
def mesh(folder: Path) -> Iterator[Orchestrator]:
    """Serve three revisions of the program, one after the other; the third serves."""
    keys = {"environment": {"COLOUR": "red"}}
    with orchestrator(Function(ID, folder / "versioned.py", keys=keys)) as running:
        for version, colour in (("two", "green"), ("three", "blue")):
            (folder / "version").write_text(version)
            running.functions[0].keys = {"environment": {"COLOUR": colour}}
            running.write_config()
            running.must("deploy", timeout_s=120)
        yield running


def answer(mesh: Orchestrator) -> dict[str, Any]:
    """Ask the function, and return what it says of itself."""
    given = call(mesh.functions[0].port)
    assert given.ok, given
    return given.json()


def roll_back(mesh: Orchestrator, *arguments: str) -> list[dict[str, Any]]:
    """Roll back as a user does; return what the command told."""
    told = mesh.must("rollback", ID, "-o", "json", *arguments, timeout_s=120).out
    return [json.loads(line) for line in told.splitlines()]


def steps(told: list[dict[str, Any]]) -> list[str]:
    """Return the steps of a rollback that were done."""
    progress = [each["progress"] for each in told if each["event"] == "progress"]
    return [each["step"] for each in progress if not each["phase"]]


def test_back_and_forth(mesh: Orchestrator, folder: Path) -> None:
    """Each revision is what it was, files and environment, whatever became of the folder."""
    third = answer(mesh)
    assert (third["version"], third["colour"]) == ("three", "blue")
    shutil.rmtree(folder)
    made = mesh.contracts.snapshot(f"snapshots/{ID}-r2").create_time
    assert steps(roll_back(mesh)) == [
        "create-instance",
        "attach-instance",
        "arm-instance",
        "set-route",
    ]
    second = answer(mesh)
    assert (second["version"], second["again"], second["colour"]) == ("two", "two", "green")
    assert mesh.contracts.snapshot(f"snapshots/{ID}-r2").create_time == made
    roll_back(mesh, "--revision", "1")
    assert answer(mesh)["again"] == "one"
    roll_back(mesh)
    assert answer(mesh)["token"] == second["token"]
    roll_back(mesh, "--revision", "3")
    assert answer(mesh)["token"] == third["token"]
    kept = mesh.contracts.function(ID).revisions
    assert [each.revision for each in kept] == [3, 2, 1]


def test_a_damaged_snapshot_is_made_anew_from_the_kept_files(
    mesh: Orchestrator, folder: Path
) -> None:
    """The steps are told; the program is started from the files that the revision had."""
    (folder / "version").write_text("four")
    token = answer(mesh)["token"]
    images = mesh.settings.snapshot_path(f"{ID}-r2") / "images"
    damaged = next(images.glob("core-*.img"))
    damaged.write_bytes(bytes(reversed(damaged.read_bytes())))
    told = roll_back(mesh)
    assert "create-golden" in steps(told)
    again = answer(mesh)
    assert (again["version"], again["again"], again["colour"]) == ("two", "two", "green")
    assert again["token"] != token


def test_a_fourth_revision_takes_the_first_away(mesh: Orchestrator, folder: Path) -> None:
    """Its snapshot and its files; a rollback to it is refused, and says what is kept.

    What did not change is one file in all copies, and stays in those that are left.
    """
    (folder / "version").write_text("four")
    mesh.must("deploy", timeout_s=120)
    roots = mesh.settings.state_dir / "roots" / ID
    kept = [roots / revision / "root" for revision in "234"]
    assert len({(copy / "versioned.py").stat().st_ino for copy in kept}) == 1
    wait_until(
        lambda: sorted(each.name for each in roots.iterdir()) == ["2", "3", "4"],
        "the first revision's files are gone",
    )
    assert [(copy / "version").read_text() for copy in kept] == ["two", "three", "four"]
    texts = {(copy / "versioned.py").read_text() for copy in kept}
    assert texts == {(folder / "versioned.py").read_text()}
    assert not mesh.settings.snapshot_path(f"{ID}-r1").exists()
    refused = mesh.ctl("rollback", ID, "--revision", "1", "-o", "json")
    assert refused.status == 4
    error = json.loads(refused.err)["error"]
    assert (error["reason"], error["metadata"]["kept"]) == ("REVISION_NOT_FOUND", "3,2")
    listed = json.loads(mesh.must("list", "-o", "json").out)["functions"][0]
    assert [each["revision"] for each in listed["revisions"]] == [4, 3, 2]
    roll_back(mesh, "--revision", "2")
    assert (answer(mesh)["version"], answer(mesh)["again"]) == ("two", "two")
