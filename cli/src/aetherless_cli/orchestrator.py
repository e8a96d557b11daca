# SPDX-License-Identifier: Apache-2.0
"""Starts the services and waits until they serve. ``removal`` is the way back."""

from __future__ import annotations

import dataclasses
import fcntl
import json
import os
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetherless_cli import errors, supervisor
from aetherless_common.errors import CLASSES, AetherlessError
from aetherless_common.proc import ProcessRef
from aetherless_common.settings import SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.config import Config
    from aetherless_cli.console import Console

LOCK_TIMEOUT = 90.0  # seconds; an up or down that holds the lock longer is stuck
START_TIMEOUT = 60.0
GIVE_UP_RESTARTS = 3  # a service that ended so often while it was to start won't start
PROBE = 0.25
LOG_LINES = 12
# Settings that running services have taken over.
FIXED = ("snapshot_dir", "shm_buffer_size", "warm_pool_size")


@contextmanager
def lock(settings: Settings, console: Console, timeout: float = LOCK_TIMEOUT) -> Iterator[None]:
    """Hold the lock that lets one ``up`` or ``down`` at a time change the orchestrator.

    A terminal is told when another one is waited for.

    Raises:
        Aborted: OPERATION_IN_PROGRESS, another one holds it all the time.
    """
    settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
    path = settings.state_dir / "orchestrator.lock"
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        with console.busy("waiting for another aetherctl up or down"):
            _acquire(descriptor, timeout)
        os.ftruncate(descriptor, 0)
        os.pwrite(descriptor, f"process {os.getpid()}".encode(), 0)
        yield
    finally:
        os.close(descriptor)


def _acquire(descriptor: int, timeout: float) -> None:
    deadline = time.monotonic() + timeout
    while True:
        try:
            return fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            if time.monotonic() > deadline:
                holder = os.pread(descriptor, 100, 0).decode(errors="replace")
                raise errors.operation_in_progress(holder or "unknown process") from None
            time.sleep(0.05)


def supervisor_process(settings: Settings) -> ProcessRef | None:
    """Return the living supervisor; None when there is none."""
    found = ProcessRef.read(settings.pid_path("supervisor"))
    return found if found and found.alive() else None


def start(settings: Settings) -> None:
    """Write the settings and leave a supervisor running that starts the services.

    Raises:
        Unavailable: SERVICE_START_FAILED.
    """
    settings.write()
    log = settings.log_path("supervisor")
    log.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    with log.open("ab") as output:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "aetherless_cli.supervisor"],
            cwd="/",
            env=supervisor.environment(settings),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
            start_new_session=True,
            timeout=30,
            check=False,
        )
    if done.returncode not in (0, supervisor.ALREADY_RUNNING):
        cause = f"it ended with status {done.returncode}"
        raise errors.service_start_failed("supervisor", cause, log_tail(settings, "supervisor"))


def refuse_other_settings(wanted: Settings) -> None:
    """Refuse settings that the running services do not have.

    Raises:
        FailedPrecondition: SETTINGS_CHANGED.
    """
    running = Settings.load()
    changed = {
        name: (getattr(running, name), getattr(wanted, name))
        for name in FIXED
        if getattr(wanted, name) != getattr(running, name)
    }
    if changed:
        raise errors.settings_changed(changed)


def wait_serving(settings: Settings, services: tuple[str, ...] = SERVICES) -> None:
    """Return when each service says that it serves.

    Raises:
        AetherlessError: what a service ended with, else SERVICE_START_FAILED.
    """
    from aetherless_common.channels import is_serving

    deadline = time.monotonic() + START_TIMEOUT
    for service in services:
        while not _serves(is_serving, settings, service):
            _refuse_hopeless(settings)
            if time.monotonic() > deadline:
                cause = f"it does not serve after {START_TIMEOUT:.0f} s"
                raise errors.service_start_failed(service, cause, log_tail(settings, service))


def _serves(is_serving: Any, settings: Settings, service: str) -> bool:
    try:
        if is_serving(settings, service, timeout=PROBE):
            return True
    except AetherlessError:
        pass  # not yet: its reason is told by _refuse_hopeless once it ended for good
    time.sleep(0.02)
    return False


def _refuse_hopeless(settings: Settings) -> None:
    """Raise what is wrong when waiting can't help."""
    if supervisor_process(settings) is None:
        log = log_tail(settings, "supervisor")
        raise errors.service_start_failed("supervisor", "it ended", log)
    try:
        status = json.loads(supervisor.status_path(settings).read_text())
    except FileNotFoundError:
        return
    for name, state in status.items():
        if state["restarts"] >= GIVE_UP_RESTARTS:
            raise last_words(settings, name, state["last_exit"])


def last_words(settings: Settings, service: str, last_exit: str) -> AetherlessError:
    """Return the typed error that a service logged when it ended, else SERVICE_START_FAILED."""
    log = log_tail(settings, service)
    said = _said(log)
    cls = next((c for c in CLASSES.values() if last_exit == f"status {c.exit_status}"), None)
    if said is None or cls is None:
        return errors.service_start_failed(service, f"it ended with {last_exit}", log)
    return cls(
        said["reason"],
        f"the {service} service can't start: {said['error']}",
        said.get("details") or {},
        domain=f"{service}.aetherless",
    )


def _said(log: str) -> dict[str, Any] | None:
    """Return the newest log record that carries a reason."""
    for line in reversed(log.splitlines()):
        try:
            record = json.loads(line)
        except ValueError:
            continue
        if isinstance(record, dict) and record.get("event") == "ended" and "reason" in record:
            return record
    return None


def log_tail(settings: Settings, service: str, lines: int = LOG_LINES) -> str:
    """Return the last lines of a service's log; empty when there is none."""
    try:
        with settings.log_path(service).open("rb") as log:
            log.seek(0, os.SEEK_END)
            log.seek(max(0, log.tell() - (32 << 10)))
            text = log.read().decode(errors="replace")
    except FileNotFoundError:
        return ""
    return "\n".join(text.splitlines()[-lines:])


def settings_for(config: Config, settings: Settings, *, running: bool) -> Settings:
    """Return the settings with a configuration's orchestrator section.

    Keys that the file leaves out are those of the orchestrator when it is running, else they have
    their defaults.
    """
    section = config.orchestrator
    names = section.model_fields_set if running else type(section).model_fields
    given = {name: getattr(section, name) for name in names}
    if "snapshot_dir" in given:
        given["snapshot_dir"] = Path(os.path.normpath(given["snapshot_dir"]))
    return dataclasses.replace(settings, **given)
