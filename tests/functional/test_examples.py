# SPDX-License-Identifier: Apache-2.0
"""The examples as a user runs them: copied, brought up by their own configuration, called."""

from __future__ import annotations

import json
import shutil
from http.client import HTTPConnection
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from framework.calls import with_client
from framework.clients import burst, call
from framework.guard import unchanged_host
from framework.mesh import REPOSITORY, UP_TIMEOUT_S, Orchestrator, free_port

if TYPE_CHECKING:
    from collections.abc import Iterator

TASKS, REPORT = "tasks", "report"
FILES = ("rest_api.py", "report.py")
CROWD = 50


class Services:
    """multi_service.yaml, running from a copy with free ports."""

    def __init__(self, mesh: Orchestrator, tasks: int, report: int) -> None:
        self.mesh, self.tasks, self.report = mesh, tasks, report

    def ask(self, method: str, path: str, body: object = None, **headers: str) -> tuple[int, Any]:
        """Call the REST API; return status and what the answer's JSON says."""
        client = HTTPConnection("localhost", self.tasks, timeout=20)
        head = {"Content-Type": "application/json", **headers}
        client.request(method, path, None if body is None else json.dumps(body), head)
        answer = client.getresponse()
        text = answer.read()
        client.close()
        return answer.status, json.loads(text) if text else None

    def evict(self) -> None:
        """End what runs of both."""
        for function in (TASKS, REPORT):
            self.mesh.evict(function)

    def page(self) -> str:
        """Return the page of the function that calls the other."""
        answer = call(self.report)
        assert answer.ok, answer
        return answer.body.decode()


def copied(folder: Path, tasks: int, report: int) -> Path:
    """Copy the example with other ports than its own; return the configuration."""
    for name in FILES:
        shutil.copy(REPOSITORY / "examples" / name, folder)
    text = (REPOSITORY / "examples" / "multi_service.yaml").read_text()
    config = folder / "multi_service.yaml"
    config.write_text(text.replace("8080", str(tasks)).replace("8081", str(report)))
    return config


@pytest.fixture(scope="module")
def services() -> Iterator[Services]:
    """Bring both services up."""
    tasks, report = free_port(), free_port()
    with unchanged_host(), Orchestrator() as mesh:
        folder = mesh.home / "example"
        folder.mkdir()
        mesh.config = copied(folder, tasks, report)
        yield Services(mesh.up(), tasks, report)


def test_one_calls_the_other(services: Services) -> None:
    """Neither runs: a call of one restores it, and its own call restores the other."""
    services.evict()
    assert "0 of 2 done" in services.page()
    assert services.mesh.contracts.state(TASKS) == "RUNNING"
    assert services.mesh.contracts.state(REPORT) == "RUNNING"
    assert services.ask("PATCH", "/tasks/1", {"done": True})[0] == 200
    assert "1 of 2 done" in services.page()


def test_a_crowd_of_first_calls_through_both(services: Services) -> None:
    """All are answered, although each needs two restores to have been made."""
    services.evict()
    answers = burst(services.report, CROWD)
    assert {answer.status for answer in answers} == {200}
    assert {answer.retransmissions for answer in answers} == {0}


def test_the_api(services: Services) -> None:
    """Tasks are made, shown, picked, changed and removed."""
    services.evict()
    status, task = services.ask("POST", "/tasks", {"title": "rest"})
    assert (status, task) == (201, {"id": 3, "done": False, "title": "rest"})
    assert services.ask("PATCH", "/tasks/3", {"done": True})[1]["done"] is True
    assert services.ask("GET", "/tasks?done=true") == (200, [{**task, "done": True}])
    assert services.ask("GET", "/tasks/3")[1]["title"] == "rest"
    assert services.ask("DELETE", "/tasks/3") == (204, None)
    assert [each["id"] for each in services.ask("GET", "/tasks")[1]] == [1, 2]


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/", None, 404),
        ("GET", "/tasks/99", None, 404),
        ("PATCH", "/tasks/99", {"done": True}, 404),
        ("PATCH", "/tasks", {"done": True}, 405),
        ("POST", "/tasks", {}, 400),
        ("POST", "/tasks", {"title": 1}, 400),
        ("POST", "/tasks", ["title"], 400),
        ("POST", "/tasks", None, 400),
        ("GET", "/tasks?done=perhaps", None, 400),
    ],
)
def test_the_api_says_what_is_wrong(
    services: Services, method: str, path: str, body: object, status: int
) -> None:
    """In JSON, with the status that fits."""
    found, answer = services.ask(method, path, body)
    assert found == status
    assert answer["error"]


def test_other_content_is_refused(services: Services) -> None:
    """What is not said to be JSON is not read."""
    answer = services.ask("POST", "/tasks", {"title": "x"}, **{"Content-Type": "text/plain"})
    assert answer[0] == 415


def test_changes_end_with_the_process(services: Services) -> None:
    """A restored service is as it was when it was deployed."""
    services.ask("POST", "/tasks", {"title": "of a moment"})
    assert len(services.ask("GET", "/tasks")[1]) > 2
    services.evict()
    assert len(services.ask("GET", "/tasks")[1]) == 2


def test_an_edited_program_is_deployed_anew(services: Services) -> None:
    """Edited in place it changes nothing; deployed, the new program answers."""
    program = services.mesh.config.parent / "rest_api.py"
    program.write_text(program.read_text().replace("deploy a function", "edit a function"))
    services.evict()
    assert services.ask("GET", "/tasks/2")[1]["title"] == "deploy a function"
    services.mesh.must("deploy", str(services.mesh.config), timeout_s=UP_TIMEOUT_S)
    assert services.ask("GET", "/tasks/2")[1]["title"] == "edit a function"
    assert services.mesh.contracts.function(TASKS).revision == 2


def test_a_function_without_a_port(tmp_path: Path) -> None:
    """invoke.yaml: a program that serves its channel alone is called through it."""
    folder = tmp_path / "examples"
    folder.mkdir()
    program = REPOSITORY / "examples" / "invoke" / "upper.py"
    with_client(folder / "invoke", program)
    with unchanged_host(), Orchestrator() as mesh:
        mesh.config = Path(shutil.copy(REPOSITORY / "examples" / "invoke.yaml", folder))
        mesh.up()
        assert mesh.must("invoke", "upper", "--data", "hello").out == "HELLO"
        mesh.evict("upper")
        assert mesh.must("invoke", "upper", "--data", "a b", "--method", "words").out == "2"
