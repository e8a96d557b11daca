# SPDX-License-Identifier: Apache-2.0
"""The examples of the client libraries as functions: called, evicted, woken, calling each other."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework.channel_examples import BUILDS, function
from framework.guard import unchanged_host
from framework.mesh import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator


@pytest.fixture(scope="module")
def mesh(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Orchestrator]:
    """Bring a function of each language up."""
    functions = [function(each, tmp_path_factory.mktemp(each)) for each in BUILDS]
    with unchanged_host(), Orchestrator(functions) as made:
        yield made.up()


def called(mesh: Orchestrator, language: str, *arguments: str) -> dict[str, Any]:
    """Call a function; return what the command line says of the answer."""
    done = mesh.must("invoke", language, *arguments, "-o", "json")
    return dict(json.loads(done.out))


@pytest.mark.parametrize("language", BUILDS)
def test_it_answers(mesh: Orchestrator, language: str) -> None:
    """Nothing, a little, much; a method that is not there and one that fails are typed errors."""
    for data in ("", "text", "long " * 10000):
        assert called(mesh, language, "--data", data)["data"] == data.upper()
    for method, reason in (("nothing", "METHOD_NOT_FOUND"), ("via", "HANDLER_FAILED")):
        refused = mesh.ctl("invoke", language, "--method", method, "-o", "json")
        assert refused.status != 0
        assert reason in refused.out + refused.err


@pytest.mark.parametrize("language", BUILDS)
def test_it_answers_after_each_restore(mesh: Orchestrator, language: str) -> None:
    """It attaches anew by itself, every time."""
    for turn in range(2):
        mesh.evict(language)
        answer = called(mesh, language, "--data", f"turn {turn}")
        assert (answer["data"], answer["woke"]) == (f"TURN {turn}", True)
        answer = called(mesh, language, "--data", "again")
        assert (answer["data"], answer["woke"]) == ("AGAIN", False)


def test_they_attach_anew_when_the_service_does(mesh: Orchestrator) -> None:
    """The service is killed while all of them run."""
    for language in BUILDS:
        assert called(mesh, language, "--data", "before")["data"] == "BEFORE"
    mesh.kill_and_wait("ipc")
    for language in BUILDS:
        assert called(mesh, language, "--data", "after")["data"] == "AFTER"


@pytest.mark.parametrize(
    ("caller", "callee"), [*zip(BUILDS, (*list(BUILDS)[1:], *BUILDS), strict=False)]
)
def test_one_calls_another(mesh: Orchestrator, caller: str, callee: str) -> None:
    """Through its own channel; a callee that sleeps is woken for it."""
    arguments = ("--method", "via", "--data", f"{callee} hello from {caller}")
    expected = f"HELLO FROM {caller.upper()}"
    assert called(mesh, caller, *arguments)["data"] == expected
    mesh.evict(callee)
    assert called(mesh, caller, *arguments)["data"] == expected


@pytest.mark.parametrize("language", BUILDS)
def test_it_may_not_call_itself(mesh: Orchestrator, language: str) -> None:
    """may_call names the others only; the error passes through the handler to the caller."""
    refused = mesh.ctl("invoke", language, "--method", "via", "--data", f"{language} x")
    assert refused.status != 0
    said = {"c": "ended with status 4"}.get(language, "CALL_NOT_ALLOWED")
    assert said in refused.out + refused.err


@pytest.mark.parametrize("language", BUILDS)
def test_killed_processes_are_woken_again(mesh: Orchestrator, language: str) -> None:
    """A kill -9 of its process while nothing is under way: the next call restores it."""
    called(mesh, language, "--data", "x")
    mesh.tree(_running(mesh, language))[0].kill()
    mesh.wait_state(language, "WARM_SNAPSHOT")
    assert called(mesh, language, "--data", "y")["data"] == "Y"


def _running(mesh: Orchestrator, language: str) -> str:
    """Return the name of the control group of a function's running instance."""
    groups = [path for path in mesh.group.glob(f"{language}-r*") if "golden" not in path.name]
    return next(Path(path).name for path in groups if mesh.tree(path.name))
