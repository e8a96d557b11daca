# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contract's name and arguments)
"""What ``check`` makes of its arguments, and of what a registry tells."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import check_pb2, function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import checking
from aetherless_cli.check_view import show, show_findings
from aetherless_cli.checking import Outcome
from aetherless_cli.config.single import single
from aetherless_cli.main import run
from aetherless_common.errors import AetherlessError, FailedPrecondition
from aetherless_common.server import serving

from .played import Registry

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless_common.settings import Settings

REFUSAL = check_pb2.Finding(
    subject="io-uring",
    severity=check_pb2.FINDING_SEVERITY_REFUSED,
    message="holds an io_uring",
    remedy="let it use epoll",
    pid=10000,
    command="server",
)
WARNING = check_pb2.Finding(
    subject="outbound-connection",
    severity=check_pb2.FINDING_SEVERITY_WARNING,
    message="had 1 connection to 10.0.0.5:5432 that is closed before the checkpoint",
    remedy="let it connect again",
)


def report(*restores_ms: float) -> check_pb2.CheckReport:
    """Return a report of restores."""
    made = check_pb2.CheckReport(
        findings=[WARNING], snapshot_bytes=2 << 20, resident_bytes=3 << 20, processes=2
    )
    for each in restores_ms:
        made.restores.add().FromMicroseconds(round(each * 1000))
    made.start_duration.FromMilliseconds(90)
    made.dump_duration.FromMilliseconds(20)
    made.first_answer.FromMilliseconds(9)
    made.suggested_restore_timeout.FromMilliseconds(14)
    return made


class Checker(Registry):
    """Tells what the test says of each check, then fails when the test says so."""

    told: tuple[messages.CheckHandlerResponse, ...] = ()
    error: AetherlessError | None = None

    def CheckHandler(self, request: Any, context: Any) -> Iterator[Any]:
        """Tell it."""
        self.request = request
        yield from self.told
        if self.error:
            raise self.error

    def start(self) -> None:
        """Have nothing to start."""

    def stop(self) -> None:
        """Have nothing to stop."""


@pytest.fixture
def registry(settings: Settings) -> Iterator[Checker]:
    """Return a registry that plays, and says that it serves."""
    played = Checker()  # type: ignore[abstract] # plays a part
    with serving(settings, "registry", played):
        yield played


@pytest.fixture
def handler(tmp_path: Path) -> Path:
    """Return a program."""
    path = tmp_path / "my.server.py"
    path.write_text("")
    return path


def outcome_of(*arguments: str) -> tuple[int, dict[str, Any], dict[str, Any]]:
    """Run a check; returns its status, its outcome and its error."""
    command = [sys.executable, "-m", "aetherless_cli.main", "-o", "json", "check", *arguments]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    (outcome,) = json.loads(done.stdout)["checks"]
    error = json.loads(done.stderr)["error"] if done.stderr else {}
    return done.returncode, outcome, error


def test_a_program_is_declared_with_defaults_and_options(registry: Checker, handler: Path) -> None:
    """The options are what a configuration would say."""
    registry.told = (messages.CheckHandlerResponse(report=report(4)),)
    keys = ("--port", "9000", "--env", "A=b=c", "--memory", "64", "--warmup", "/health")
    status, outcome, _ = outcome_of(str(handler), *keys, "--restores", "3")
    spec = registry.request.spec
    assert (status, outcome["verdict"]) == (0, "warnings")
    assert (spec.function_id, spec.trigger_port, spec.memory_limit_mb) == ("my-server", 9000, 64)
    assert (spec.handler_path, spec.root_path) == (str(handler), str(handler.parent))
    assert dict(spec.environment) == {"A": "b=c"}
    assert (spec.warmup_kind, spec.warmup_path) == (function_pb2.WARMUP_KIND_HTTP, "/health")
    assert registry.request.restores == 3


@pytest.mark.parametrize(("more", "port"), [((), 0), (("--port", "9000"), 9000)])
def test_a_program_with_a_channel_needs_no_port(
    registry: Checker, handler: Path, more: tuple[str, ...], port: int
) -> None:
    """Without one it is asked nothing; named, it is a port beside the channel."""
    registry.told = (messages.CheckHandlerResponse(report=report(4)),)
    outcome_of(str(handler), "--ipc", *more)
    spec = registry.request.spec
    assert (spec.ipc, spec.trigger_port) == (True, port)
    asks = function_pb2.WARMUP_KIND_HTTP if port else function_pb2.WARMUP_KIND_NONE
    assert spec.warmup_kind == asks


def test_a_refusal(registry: Checker, handler: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The findings that were told before, and the error with its exit status."""
    registry.told = (messages.CheckHandlerResponse(findings=[REFUSAL, WARNING]),)
    registry.error = FailedPrecondition("NOT_CHECKPOINTABLE", "no", {"cause": "x"}, remedy="do")
    status, outcome, error = outcome_of(str(handler))
    assert (status, outcome["verdict"]) == (6, "refused")
    assert [each["subject"] for each in outcome["findings"]] == ["io-uring", "outbound-connection"]
    assert outcome["report"] is None
    assert outcome["error"]["reason"] == error["reason"] == "NOT_CHECKPOINTABLE"


def test_restores_above_a_declared_limit(registry: Checker, handler: Path, tmp_path: Path) -> None:
    """A deploy would fail with it; a program without a declaration has no limit."""
    registry.told = (messages.CheckHandlerResponse(report=report(4, 7.5)),)
    file = tmp_path / "a.yaml"
    entry = {
        "id": "a",
        "handler_path": str(handler),
        "trigger_port": 8080,
        "restore_timeout_ms": 7,
    }
    file.write_text(json.dumps({"functions": [entry]}))
    status, outcome, error = outcome_of(str(file))
    assert (status, outcome["verdict"]) == (12, "late")
    assert error["reason"] == "RESTORE_LATENCY_VIOLATION"
    assert error["metadata"] == {
        "function": "a",
        "limitMs": "7",
        "tookMs": "7.5",
        "suggestedMs": "14",
    }
    assert "14" in error["remedy"]
    assert (outcome["restore_p50_ms"], outcome["restore_max_ms"]) == (5.75, 7.5)
    assert outcome_of(str(handler))[0] == 0


def test_findings_on_a_narrow_terminal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """What is found stands below what it is found in, and fits."""
    monkeypatch.setenv("COLUMNS", "60")
    show_findings([WARNING], 2)
    assert capsys.readouterr().out.splitlines() == [
        "  warning  outbound-connection  -",
        "      had 1 connection to 10.0.0.5:5432 that is closed",
        "      before the checkpoint",
        "      change: let it connect again",
    ]


WRONG = [
    (["a.yaml", "--port", "1"], 2),
    (["server.py", "--port", "0"], 2),
    (["server.py", "--env", "A"], 2),
    (["server.py", "--id", "a b"], 2),
    (["server.py", "--restores", "101"], 2),
    (["none.py"], 4),
    (["none.yaml"], 4),
    (["server.py", "--root", "/nowhere"], 3),
    (["server.py", "--env", "PORT=1"], 3),
    (["server.py", "--warmup", "udp"], 3),
]


@pytest.mark.parametrize(("arguments", "status"), WRONG, ids=str)
def test_wrong_arguments(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    arguments: list[str],
    status: int,
) -> None:
    """Before any service is asked or started."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(checking, "registry", lambda *_: pytest.fail("a service was asked"))
    (tmp_path / "server.py").write_text("")
    assert run(["check", *arguments]) == status
    assert capsys.readouterr().err


def test_an_id_that_the_file_does_not_declare(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Those that it does are named."""
    assert run(["check", str(repository / "examples" / "hello.yaml"), "--id", "none"]) == 2
    assert "hello-api" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "function"), [("a.py", "a"), ("my server.v2.py", "my-server-v2"), ("--.py", "handler")]
)
def test_ids_are_made_of_names(tmp_path: Path, name: str, function: str) -> None:
    """With what an id may hold."""
    (tmp_path / name).write_text("")
    config = single(str(tmp_path / name), None, trigger_port=8080)
    assert config.functions[0].id == function


VERDICTS = [
    (Outcome(function_pb2.FunctionSpec(), findings=[REFUSAL]), "refused"),
    (Outcome(function_pb2.FunctionSpec()), "failed"),
    (Outcome(function_pb2.FunctionSpec(), report=report(4)), "fine"),
    (Outcome(function_pb2.FunctionSpec(), report=report(4), findings=[WARNING]), "warnings"),
]


@pytest.mark.parametrize(("outcome", "verdict"), VERDICTS, ids=[each[1] for each in VERDICTS])
def test_verdicts(outcome: Outcome, verdict: str) -> None:
    """The worst counts."""
    assert outcome.verdict == verdict


def test_what_people_see(capsys: pytest.CaptureFixture[str]) -> None:
    """What it holds, whose it is, what to change, and the figures."""
    spec = function_pb2.FunctionSpec(function_id="a", handler_path="/srv/a.py")
    error = FailedPrecondition("NOT_CHECKPOINTABLE", "no")
    show(Outcome(spec, findings=[REFUSAL, WARNING], error=error))
    first, second, third, *_ = capsys.readouterr().out.splitlines()
    assert first == "a (/srv/a.py): can't be checkpointed"
    assert second == "  refused  io-uring             server (10000)  holds an io_uring"
    assert third.strip() == "change: let it use epoll"
    show(Outcome(spec, limit_ms=15, report=report(4, 6)))
    printed = capsys.readouterr().out
    assert "p50 5.0 ms, max 6.0 ms of 2, its limit is 15 ms" in printed
    assert "3.0 MiB in 2 processes" in printed
    assert "restore_timeout_ms: 14" in printed
