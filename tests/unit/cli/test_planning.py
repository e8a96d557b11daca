# SPDX-License-Identifier: Apache-2.0
"""What a deploy shows before it does it, and that it does what it showed; a rollback."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.played import Registry, function

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings

UPDATED = registry_service_pb2.FUNCTION_EVENT_TYPE_UPDATED


@pytest.fixture
def registry(play: Play) -> Registry:
    """Return a played registry."""
    played = Registry()  # type: ignore[abstract] # plays a part
    play("registry", played.register)
    return played


@pytest.fixture
def file(tmp_path: Path) -> str:
    """Return a configuration of one function."""
    (tmp_path / "hello.py").touch()
    path = tmp_path / "c.yaml"
    path.write_text("functions: [{id: a, handler_path: hello.py, trigger_port: 8080}]")
    return str(path)


def planned(name: str, action: str, *changes: tuple[str, str, str], etag: str = "1") -> Any:
    """Return what happens to a function."""
    told = registry_service_pb2.FunctionPlan(
        function_id=name,
        action=registry_service_pb2.PlanAction.Value(f"PLAN_ACTION_{action}"),
        revision=0 if action == "DELETE" else 2,
        etag=etag,
    )
    for field, before, after in changes:
        told.changes.add(field=field, before=before, after=after)
    return told


PLAN = [
    planned(
        "a",
        "UPDATE",
        ("memory_limit_mb", "128", "256"),
        ("environment.TOKEN", "old-secret", "new-secret"),
        ("environment.MORE", "", "another"),
        ("source_digest", "1f", "2e"),
    ),
    planned("gone", "DELETE"),
]


def deployed(name: str = "a", etag: str = "") -> registry_service_pb2.FunctionEvent:
    """Return the event that a function is deployed."""
    told = function(name, 2)
    told.spec.environment["TOKEN"] = "new-secret"  # made up
    told.etag = etag or told.etag
    return registry_service_pb2.FunctionEvent(type=UPDATED, function=told)


def test_a_dry_run_shows_and_does_nothing(
    registry: Registry, settings: Settings, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Field by field, without the values of the environment."""
    registry.plans.append(PLAN)
    assert run(["deploy", "--dry-run", "--prune", file]) == 0
    assert capsys.readouterr().out.splitlines() == [
        "a: update to revision 2",
        "    memory_limit_mb    128 → 256",
        "    environment.TOKEN  (hidden) → (hidden)",
        "    environment.MORE   - → (hidden)",
        "    files              changed",
        "gone: delete",
    ]
    assert registry.applied == []


def test_values_are_shown_when_asked_for(
    registry: Registry, settings: Settings, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """To people and to programs alike."""
    registry.plans += [PLAN, PLAN]
    assert run(["deploy", "--dry-run", "--show-values", file]) == 0
    assert "environment.TOKEN  old-secret → new-secret" in capsys.readouterr().out
    assert run(["deploy", "--dry-run", "--show-values", "-o", "json", file]) == 0
    (line,) = map(json.loads, capsys.readouterr().out.splitlines())
    update, gone = line["functions"]
    assert (line["event"], update["action"]) == ("plan", "PLAN_ACTION_UPDATE")
    assert update["changes"][1] == {
        "field": "environment.TOKEN",
        "before": "old-secret",
        "after": "new-secret",
    }
    assert (gone["function_id"], gone["action"]) == ("gone", "PLAN_ACTION_DELETE")


def test_what_is_shown_is_what_is_done(
    registry: Registry, settings: Settings, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The declaration names the etags of the plan; no output for programs holds a secret."""
    registry.plans.append(PLAN)
    registry.pipeline_plan.append(
        registry_service_pb2.PipelinePlan(
            pipeline_id="p", action=registry_service_pb2.PLAN_ACTION_DELETE, etag="5"
        )
    )
    registry.script.put(deployed())
    assert run(["deploy", "--prune", "-o", "json", file]) == 0
    (request,) = registry.applied
    assert dict(request.etags) == {"a": "1", "gone": "1"}
    assert dict(request.pipeline_etags) == {"p": "5"}
    printed = capsys.readouterr().out
    assert "secret" not in printed
    assert [json.loads(line)["event"] for line in printed.splitlines()] == ["plan", "deployed"]
    registry.script.put(None)


def test_a_function_that_merely_woke_is_no_hindrance(
    registry: Registry, settings: Settings, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same plan with other etags is carried out, and not shown again."""
    registry.plans += [[planned("a", "CREATE", etag=etag)] for etag in ("1", "2", "3")]
    registry.mismatches = 2
    registry.script.put(deployed())
    assert run(["deploy", file]) == 0
    assert [dict(request.etags) for request in registry.applied] == [
        {"a": "1"},
        {"a": "2"},
        {"a": "3"},
    ]
    assert capsys.readouterr().out.count("a: create") == 1
    registry.script.put(None)


def test_another_plan_is_not_carried_out(
    registry: Registry, settings: Settings, file: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Somebody else deployed in between: the caller looks again."""
    registry.plans += [[planned("a", "CREATE")], [planned("a", "UNCHANGED", etag="2")]]
    registry.mismatches = 1
    assert run(["deploy", file]) == 7
    assert "ETAG_MISMATCH" in capsys.readouterr().err
    assert len(registry.applied) == 1


def test_a_rollback_is_followed_to_its_end(
    registry: Registry, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Though its revision is a smaller number than what was deployed before."""
    registry.functions.append(function("a", 2))
    registry.script.put(deployed(etag="8"))
    old = function("a", 1)
    old.etag = "10"
    registry.script.put(registry_service_pb2.FunctionEvent(type=UPDATED, function=old))
    assert run(["rollback", "a", "--revision", "1"]) == 0
    (request,) = registry.rollbacks
    assert (request.name, request.revision) == ("functions/a", 1)
    assert request.request_id
    (line,) = capsys.readouterr().out.splitlines()
    assert line.startswith("a: revision 1 serves after")
    registry.script.put(None)


def test_a_rollback_that_failed(
    registry: Registry, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Its reason gives the exit status."""
    registry.functions.append(function("a", 2))
    failed = function("a", 1, function_pb2.DEPLOY_STATE_FAILED)
    failed.etag = "11"
    failed.deploy_error.reason = "SNAPSHOT_CORRUPT"
    failed.deploy_error.domain = "snapshotter.aetherless"
    registry.script.put(registry_service_pb2.FunctionEvent(type=UPDATED, function=failed))
    assert run(["rollback", "a"]) == 11
    assert "SNAPSHOT_CORRUPT" in capsys.readouterr().err
    assert registry.rollbacks[0].revision == 0
    assert run(["rollback", "a", "--revision", "0"]) == 2
    registry.script.put(None)
