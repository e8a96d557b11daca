# SPDX-License-Identifier: Apache-2.0
"""The supervisor over real services: restarts, adoption, the end."""

from __future__ import annotations

import json
import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from aetherless_cli import orchestrator, supervisor
from aetherless_cli.console import Console
from aetherless_cli.removal import Removal
from aetherless_common.errors import AetherlessError
from aetherless_common.logfiles import MAX_LOG_BYTES, OLDER
from aetherless_common.proc import ProcessRef
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
PLAYERS = ("registry", "ipc")  # they need nothing of the host


@pytest.fixture
def running(settings: Settings) -> Iterator[Settings]:
    """Give the settings of an orchestrator whose supervisor was just started."""
    orchestrator.start(settings)
    yield settings
    Removal(settings, Console("table")).run()


def end(settings: Settings, name: str) -> None:
    """End a process by its pid file."""
    process = ProcessRef.read(settings.pid_path(name))
    if process and process.pid > 1 and process.alive():
        process.signal(signal.SIGTERM)
        assert process.wait(40)


def living(settings: Settings, name: str, other_than: int = 0) -> ProcessRef:
    """Return a service's process once it lives and serves."""

    def look() -> ProcessRef | None:
        found = ProcessRef.read(settings.pid_path(name))
        return found if found and found.alive() and found.pid != other_than else None

    process = wait_until(look, f"{name} lives", 30)
    assert process is not None
    return process


def test_it_runs_in_a_session_of_its_own(running: Settings) -> None:
    """Neither Ctrl-C nor the end of a terminal reaches it or the services."""
    sessions = {os.getsid(living(running, name).pid) for name in ("supervisor", *PLAYERS)}
    assert len(sessions) == 3
    assert os.getsid(0) not in sessions
    log = running.log_path("supervisor").read_text()
    assert "supervisor starts" in log


def test_a_killed_service_is_started_again(running: Settings) -> None:
    """With its end noted where ``up`` looks."""
    before = living(running, "ipc")
    before.signal(signal.SIGKILL)
    after = living(running, "ipc", other_than=before.pid)
    assert after.pid != before.pid
    state = json.loads(supervisor.status_path(running).read_text())["ipc"]
    assert (state["restarts"], state["last_exit"]) == (1, "signal 9")


def test_a_long_log_is_cut_while_its_service_writes(running: Settings) -> None:
    """Its end is kept beside it, and what the service says next comes at its new beginning."""
    before, path = living(running, "ipc"), running.log_path("ipc")
    wait_until(lambda: "serving" in path.read_text(), "it serves", 30)
    with path.open("ab") as log:
        log.write(b"x" * MAX_LOG_BYTES + b"the end\n")
    older = path.with_suffix(OLDER)
    wait_until(lambda: path.stat().st_size == 0, "it is cut", 30)
    assert older.stat().st_size == MAX_LOG_BYTES
    assert older.read_bytes().endswith(b"xthe end\n")
    before.signal(signal.SIGTERM)
    wait_until(lambda: path.read_text().startswith('{"event": "draining"'), "its last words", 30)


def test_a_second_supervisor_finds_the_first(running: Settings) -> None:
    """Starting what is started changes nothing."""
    before = living(running, "supervisor")
    orchestrator.start(running)
    assert living(running, "supervisor") == before


def test_a_new_supervisor_adopts_what_an_old_one_left(running: Settings) -> None:
    """SIGKILL of the supervisor leaves the services; its successor watches the same processes."""
    services = {name: living(running, name) for name in PLAYERS}
    first = living(running, "supervisor")
    first.signal(signal.SIGKILL)
    assert first.wait(10)
    orchestrator.start(running)
    living(running, "supervisor", other_than=first.pid)
    wait_until(lambda: supervisor.status_path(running).exists(), "it has looked")
    assert {name: living(running, name) for name in PLAYERS} == services
    services["ipc"].signal(signal.SIGKILL)
    living(running, "ipc", other_than=services["ipc"].pid)


def test_sigterm_ends_it_and_the_services(running: Settings) -> None:
    """Nothing of it stays in the runtime folder."""
    processes = [living(running, name) for name in ("supervisor", *PLAYERS)]
    end(running, "supervisor")
    assert not any(process.alive() for process in processes)
    assert not running.pid_path("supervisor").exists()
    assert not supervisor.status_path(running).exists()


def test_a_service_that_cannot_start_says_why(running: Settings) -> None:
    """Its own typed error reaches the user, not a timeout."""
    store = living(running, "registry")
    running.registry_path.unlink()
    for suffix in ("-wal", "-shm"):
        running.registry_path.with_name(running.registry_path.name + suffix).unlink(missing_ok=True)
    running.registry_path.write_text("no database, whatever its name says. " * 100)
    began = time.monotonic()
    store.signal(signal.SIGKILL)
    with pytest.raises(AetherlessError) as caught:
        orchestrator.wait_serving(running, ("registry",) if store.wait(5) else ())
    assert "the registry service can't start" in caught.value.message
    assert caught.value.domain == "registry.aetherless"
    assert time.monotonic() - began < orchestrator.START_TIMEOUT
    running.registry_path.unlink()  # as the error's remedy says; else ``down`` could not clear it


def test_down_ends_everything_and_works_again_with_nothing(running: Settings) -> None:
    """The runtime folder goes; a second ``down`` finds nothing and is content."""
    processes = [living(running, name) for name in ("supervisor", *PLAYERS)]
    removal = Removal(running, Console("table"))
    assert removal.run()
    assert "supervisor" in removal.ended
    assert not any(process.alive() for process in processes)
    assert not running.runtime_dir.exists()
    assert not Removal(running, Console("table")).run()


def test_down_after_the_supervisor_was_killed(running: Settings) -> None:
    """The services are found by their own pid files."""
    processes = [living(running, name) for name in ("supervisor", *PLAYERS)]
    processes[0].signal(signal.SIGKILL)
    removal = Removal(running, Console("table"))
    assert removal.run()
    assert set(PLAYERS) <= set(removal.ended)
    assert not any(process.alive() for process in processes)


def test_only_one_at_a_time_changes_the_orchestrator(settings: Settings) -> None:
    """A second ``up`` or ``down`` waits, and then says who is at work."""
    console = Console("table")
    second = orchestrator.lock(settings, console, timeout=0.2)
    with orchestrator.lock(settings, console), pytest.raises(AetherlessError) as caught, second:
        pytest.fail("the lock was given twice")
    assert caught.value.reason == "OPERATION_IN_PROGRESS"
    assert f"process {os.getpid()}" in caught.value.message
