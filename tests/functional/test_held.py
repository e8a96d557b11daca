# SPDX-License-Identifier: Apache-2.0
"""What a program holds across the checkpoint is right after each restore: files of every kind."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

FILES = "files"
RESTORES = 3


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve the program that holds files."""
    with orchestrator(Function(FILES, handler("files"))) as running:
        yield running


def told(mesh: Orchestrator) -> dict[str, Any]:
    """Return what the program says of its files."""
    answer = call(mesh.functions[0].port)
    assert answer.ok, answer
    found = answer.json()
    assert "error" not in found, found
    return found


def after_a_restore(mesh: Orchestrator) -> Iterator[dict[str, Any]]:
    """Yield what the program says at the first call after each of some restores."""
    for _ in range(RESTORES):
        mesh.evict(FILES)
        yield told(mesh)
        told(mesh)  # what is written now ends with this instance


def test_databases(mesh: Orchestrator) -> None:
    """Connections opened before the checkpoint read and write, and others see it."""
    for found in after_a_restore(mesh):
        for name, shipped in (("own", 0), ("shipped", 1)):
            rows = found["count"] + shipped
            assert found["databases"][name] == {"rows": rows, "seen": rows, "sound": "ok"}


def test_an_append_only_log(mesh: Orchestrator) -> None:
    """It goes on after the line of the warm-up."""
    for found in after_a_restore(mesh):
        assert found["log"] == ["request 1", "request 2"]


def test_a_pid_file(mesh: Orchestrator) -> None:
    """It names the process, whose number is what it was."""
    assert {found["pid_file"] - found["pid"] for found in after_a_restore(mesh)} == {0}


def test_a_temporary_file_without_a_name(mesh: Orchestrator) -> None:
    """It holds what it held, and still has no name."""
    for found in after_a_restore(mesh):
        assert (found["temporary"], found["links"]) == ("1 2 ", 0)


def test_a_sparse_file(mesh: Orchestrator) -> None:
    """Its end is there, and its hole takes no memory."""
    for found in after_a_restore(mesh):
        assert found["sparse"]["end"] == found["token"]
        assert found["sparse"]["bytes"] < 1 << 20


def test_a_unix_socket(mesh: Orchestrator) -> None:
    """Who connects by its path meets the process that listened before the checkpoint."""
    for found in after_a_restore(mesh):
        assert found["socket"] == found["token"]
