# SPDX-License-Identifier: Apache-2.0
"""``up`` over an orchestrator that is up already, its services played."""

from __future__ import annotations

import subprocess
import threading
from typing import TYPE_CHECKING

import pytest
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from unit.cli.played import Netplane, Registry, Snapshotter, function

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_cli.main import run
from aetherless_common.proc import ProcessRef
from aetherless_common.serviceconfig import full_service_name

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    import grpc
    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
UPDATED = registry_service_pb2.FUNCTION_EVENT_TYPE_UPDATED
WAKE = registry_service_pb2.FUNCTION_EVENT_TYPE_WAKE


def healthy(service: str, register: Callable[[grpc.Server], None]) -> Callable[[grpc.Server], None]:
    """Return what registers a servicer together with health checks that say SERVING."""

    def both(server: grpc.Server) -> None:
        checks = health.HealthServicer()
        checks.set(full_service_name(service), health_pb2.HealthCheckResponse.SERVING)
        health_pb2_grpc.add_HealthServicer_to_server(checks, server)
        register(server)

    return both


@pytest.fixture
def registry(play: Play, settings: Settings) -> Iterator[Registry]:
    """Play all four services beside a supervisor that only lives; give the registry."""
    registry = Registry()  # type: ignore[abstract] # plays a part
    play("registry", healthy("registry", registry.register))
    snapshotter = Snapshotter(0)  # type: ignore[abstract] # plays a part
    play("snapshotter", healthy("snapshotter", snapshotter.register))
    netplane = Netplane()  # type: ignore[abstract] # plays a part
    play("netplane", healthy("netplane", netplane.register))
    play("ipc", healthy("ipc", lambda _: None))
    with subprocess.Popen(["sleep", "60"]) as supervisor:
        ProcessRef.of(supervisor.pid).write(settings.pid_path("supervisor"))
        yield registry
        registry.script.put(None)
        supervisor.kill()


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return a configuration, with a prefix in which everything seems to be built."""
    prefix = tmp_path / "prefix"
    (prefix / "bpf").mkdir(parents=True)
    (prefix / "bpf" / "x.bpf.o").touch()
    for name in ("criu", "aether-init"):
        (prefix / name).touch(mode=0o755)
    monkeypatch.setenv("AETHER_PREFIX", str(prefix))
    (tmp_path / "hello.py").touch()
    path = tmp_path / "c.yaml"
    path.write_text("functions: [{id: a, handler_path: hello.py, trigger_port: 8080}]\n")
    return path


def told(
    revision: int, deploy: function_pb2.DeployState.ValueType
) -> registry_service_pb2.FunctionEvent:
    """Return the event of function a with a deploy state."""
    return registry_service_pb2.FunctionEvent(
        type=UPDATED, function=function("a", revision, deploy)
    )


def test_up_applies_the_file_and_returns(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing is started, and nothing is pruned."""
    registry.script.put(told(2, function_pb2.DEPLOY_STATE_DEPLOYED))
    assert run(["-c", str(file), "up"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "the four services serve"
    assert lines[1] == "a: create"
    assert lines[2].startswith("a: revision 2 serves after")
    assert not registry.applied[0].prune
    assert settings.pid_path("supervisor").exists()


def test_what_was_up_before_stays_up_when_a_deploy_fails(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """Only what this command started is taken down."""
    failed = told(2, function_pb2.DEPLOY_STATE_FAILED)
    failed.function.deploy_error.reason = "HANDLER_EXITED"
    failed.function.deploy_error.domain = "snapshotter.aetherless"
    registry.script.put(failed)
    assert run(["-c", str(file), "up", "-f"]) == 6
    assert "HANDLER_EXITED" in capsys.readouterr().err
    found = ProcessRef.read(settings.pid_path("supervisor"))
    assert found is not None
    assert found.alive()


def test_the_foreground_shows_wakes_until_the_orchestrator_is_gone(
    registry: Registry, file: Path, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """``down`` from elsewhere ends it, with status 0."""
    registry.script.put(told(2, function_pb2.DEPLOY_STATE_DEPLOYED))
    wake = function_pb2.WakeNotice(cause="packet", client="127.0.0.1:9")
    wake.restore_duration.nanos = 6_700_000
    woken = registry_service_pb2.FunctionEvent(type=WAKE, function=function("a"), wake=wake)
    registry.script.put(woken)
    threading.Timer(1.0, settings.pid_path("supervisor").unlink).start()
    assert run(["-c", str(file), "up", "--foreground"]) == 0
    shown = capsys.readouterr().out
    assert "a: woken by 127.0.0.1:9, restored in 6.7 ms" in shown
    assert shown.rstrip().endswith("the orchestrator was taken down elsewhere")
