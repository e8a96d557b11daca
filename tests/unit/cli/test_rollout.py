# SPDX-License-Identifier: Apache-2.0
"""A deploy as the registry tells of it, up to the exit status."""

from __future__ import annotations

import io
import textwrap
from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration
from unit.cli.played import Registry, function

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_cli.client import mesh
from aetherless_cli.console import Console
from aetherless_cli.live import changes
from aetherless_cli.main import run
from aetherless_cli.rollout import Rollout
from aetherless_cli.wakes import wake_line
from aetherless_common.errors import Aborted

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings

UPDATED = registry_service_pb2.FUNCTION_EVENT_TYPE_UPDATED
PROGRESS = registry_service_pb2.FUNCTION_EVENT_TYPE_PROGRESS


@pytest.fixture
def registry(play: Play) -> Registry:
    """Return a played registry that knows nothing yet."""
    played = Registry()  # type: ignore[abstract] # plays a part
    play("registry", played.register)
    return played


@pytest.fixture
def file(tmp_path: Path) -> Path:
    """Return a configuration of two functions."""
    (tmp_path / "hello.py").touch()
    path = tmp_path / "c.yaml"
    path.write_text(
        textwrap.dedent("""\
        orchestrator: {restore_timeout_ms: 70}
        functions:
          - {id: a, handler_path: hello.py, trigger_port: 8080, restore_timeout_ms: 20}
          - {id: b, handler_path: hello.py, trigger_port: 8081, warmup: tcp}
        """)
    )
    return path


def event(told: function_pb2.Function) -> registry_service_pb2.FunctionEvent:
    """Return the event that tells of a function."""
    return registry_service_pb2.FunctionEvent(type=UPDATED, function=told)


def progress(step: str, phase: str = "") -> registry_service_pb2.FunctionEvent:
    """Return the event that tells of a step that is done."""
    done = function_pb2.DeployProgress(
        step=step,
        phase=phase,
        state=function_pb2.PROGRESS_STATE_DONE,
        duration=Duration(nanos=12_000_000),
    )
    return registry_service_pb2.FunctionEvent(
        type=PROGRESS, function=function("a", 2), progress=done
    )


def test_deploy_shows_phases_and_returns_when_all_are_deployed(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """News of an older revision does not count."""
    registry.script.put(event(function("a", 1)))
    registry.script.put(progress("create-snapshot", "dump"))
    registry.script.put(progress("create-snapshot"))
    registry.script.put(event(function("a", 2)))
    registry.script.put(event(function("b", 2)))

    assert run(["deploy", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[:2] == ["a: create", "b: create"]
    assert lines[2].split() == ["a:", "dump", "12", "ms"]
    assert lines[3].split() == ["a:", "create-snapshot", "12", "ms"]
    assert lines[4].startswith("a: revision 2 serves after")
    assert lines[4].endswith("http://localhost:8080")
    assert len(lines) == 6
    (request,) = registry.applied
    assert request.request_id
    assert not request.prune
    first, second = request.functions
    assert (first.restore_timeout.nanos, second.restore_timeout.nanos) == (20_000_000, 70_000_000)
    assert second.warmup_kind == function_pb2.WARMUP_KIND_TCP
    registry.script.put(None)


@pytest.mark.parametrize(
    ("warmup", "where"),
    [
        (function_pb2.WARMUP_KIND_NONE, "aetherctl invoke b"),
        (function_pb2.WARMUP_KIND_TCP, "http://localhost:8080, aetherctl invoke b"),
    ],
)
def test_a_function_with_a_channel_is_invoked(
    registry: Registry,
    file: Path,
    settings: Settings,
    capsys: pytest.CaptureFixture[str],
    warmup: function_pb2.WarmupKind.ValueType,
    where: str,
) -> None:
    """Its port is told where its warm-up has shown that it listens."""
    told = function("b", 2)
    told.spec.ipc, told.spec.warmup_kind = True, warmup
    for each in (function("a", 2), told):
        registry.script.put(event(each))
    assert run(["deploy", str(file)]) == 0
    last = capsys.readouterr().out.splitlines()[-1]
    assert last.startswith("b: revision 2 serves after")
    assert last.endswith(f": {where}")
    registry.script.put(None)


def test_the_first_failure_gives_the_exit_status(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Reason, message, log and remedy are printed; what is deployed is told."""
    failed = function("b", 2, function_pb2.DEPLOY_STATE_FAILED)
    failed.deploy_step = "create-snapshot"
    failed.deploy_error.reason = "READY_TIMEOUT"
    failed.deploy_error.domain = "snapshotter.aetherless"
    failed.deploy_error.message = "did not listen on port 8081 within 30000 ms"
    failed.deploy_error.metadata["log"] = "last words"
    registry.script.put(event(failed))
    registry.script.put(event(function("a", 2)))

    assert run(["deploy", str(file)]) == 12
    printed = capsys.readouterr()
    assert "b: failed in create-snapshot; revision 2 goes on serving" in printed.out
    assert "the orchestrator goes on, and serves: a" in printed.out
    assert "error: READY_TIMEOUT: b: did not listen on port 8081" in printed.err
    assert "    last words" in printed.err
    assert "remedy: listen on the port in PORT" in printed.err
    registry.script.put(None)


def test_every_failure_is_told_with_its_remedy(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Each with its log lines; a remedy that several have is told once, the first one's last."""
    text = file.read_text()
    more = "".join(f"  - {{id: {name}, handler_path: hello.py, ipc: true}}\n" for name in "cde")
    file.write_text(text + more)
    reasons = {"a": "HANDLER_EXITED", "b": "READY_TIMEOUT", "c": "READY_TIMEOUT"}
    for name, reason in {**reasons, "d": "HANDLER_EXITED"}.items():
        failed = function(name, 2, function_pb2.DEPLOY_STATE_FAILED)
        failed.deploy_error.reason = reason
        failed.deploy_error.domain = "snapshotter.aetherless"
        failed.deploy_error.message = f"{name} does not work"
        failed.deploy_error.metadata["log"] = f"words of {name}"
        registry.script.put(event(failed))
    registry.script.put(event(function("e", 2)))

    assert run(["deploy", str(file)]) == 6
    printed = capsys.readouterr()
    told = printed.out[printed.out.index("READY_TIMEOUT: b") :].splitlines()
    assert told[:3] == ["READY_TIMEOUT: b does not work", "  last log lines:", "    words of b"]
    assert told[3].startswith("remedy: listen on the port in PORT")
    assert told[4:10] == [
        "READY_TIMEOUT: c does not work", "  last log lines:", "    words of c",
        "HANDLER_EXITED: d does not work", "  last log lines:", "    words of d",
    ]  # fmt: skip
    assert told[10:] == ["the orchestrator goes on, and serves: e"]
    assert "error: HANDLER_EXITED: a does not work" in printed.err
    assert printed.err.count("remedy: ") == 1
    registry.script.put(None)


def test_other_settings_than_the_running_ones_are_refused(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """What running services took over can't change; what the file leaves out is as it is."""
    file.write_text(
        file.read_text().replace("orchestrator: {", "orchestrator: {warm_pool_size: 2, ")
    )
    assert run(["deploy", str(file)]) == 6
    told = capsys.readouterr().err
    assert "SETTINGS_CHANGED: the running orchestrator was started with warm_pool_size 10" in told
    assert "not 2" in told
    assert registry.applied == []


def test_a_rollout_ends_when_the_orchestrator_is_taken_down(
    registry: Registry, settings: Settings
) -> None:
    """Nothing waits for ever."""
    with mesh(settings) as services, changes(services) as stream:
        rollout = Rollout(services, stream, Console("table", io.StringIO()), lambda: False)
        rollout.declare([function_pb2.FunctionSpec(function_id="a")], prune=True)
        with pytest.raises(Aborted) as caught:
            rollout.follow()
        assert caught.value.reason == "TAKEN_DOWN"
        registry.script.put(None)
    assert registry.applied[0].prune


def test_the_stream_of_changes_outlives_the_registry(
    play: Play, registry: Registry, settings: Settings
) -> None:
    """After a restart it begins again with the present state."""
    with mesh(settings) as services, changes(services) as stream:
        assert stream.next(5).revision == 4
        registry.script.put(None)  # the registry ends the stream
        assert stream.next(5).revision == 4
        registry.script.put(None)


def test_a_wake_is_one_line() -> None:
    """What woke, by whom, how fast; a failed one says why."""
    wake = function_pb2.WakeNotice(
        cause="packet",
        client="127.0.0.1:5000",
        restore_duration=Duration(nanos=6_700_000),
        first_byte=Duration(nanos=7_400_000),
    )
    console = Console("table", io.StringIO())
    line = wake_line("a", wake, console)
    wanted = "a: woken by 127.0.0.1:5000, restored in 6.7 ms, first byte after 7.4 ms"
    assert line.endswith(wanted)
    wake.failure_reason, wake.failure_message = "RESTORE_LATENCY_VIOLATION", "took 21 ms of 15 ms"
    line = wake_line("a", wake, console)
    assert line.endswith("failed: RESTORE_LATENCY_VIOLATION: took 21 ms of 15 ms")
