# SPDX-License-Identifier: Apache-2.0
"""All checks of ``aetherctl doctor``, with the services started for a moment when need be."""

from __future__ import annotations

import dataclasses
import os
import shutil
import signal
import subprocess
import tempfile
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_cli import orchestrator
from aetherless_cli.client import mesh
from aetherless_cli.output import remedy_of
from aetherless_cli.preflight import Check, check_host, missing
from aetherless_cli.removal import Removal
from aetherless_cli.session import service_checks
from aetherless_cli.supervisor import start_service
from aetherless_common.channels import is_serving
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import Settings, orchestrator_id

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.console import Console

TRIAL = "host-check.json"  # ARCHITECTURE.md, section 2
CHECKERS = ("snapshotter", "netplane")
START_TIMEOUT = 60.0
PROBE = 0.25
GRACE = 10.0


def examine(console: Console, *, force: bool) -> list[Check]:
    """Return every check. Those of the services are left out when the host can't start them."""
    settings = Settings.load()
    checks = check_host(settings)
    if orchestrator.supervisor_process(settings):
        console.passing("checkpointing and restoring a program")
        return _merged(checks, _ask(settings, force=force))
    if not all(check.ok for check in checks):
        return checks
    console.passing("starting the snapshotter and the netplane for a moment")
    with _passing_settings(settings) as passing, _remembered(settings, passing):
        try:
            with _services(passing):
                console.passing("checkpointing and restoring a program")
                checks = _merged(checks, _ask(passing, force=force))
        except AetherlessError as error:
            name = error.domain.removesuffix(".aetherless") or "services"
            checks.append(missing(name, error.message, remedy_of(error), error.reason))
        finally:
            Removal(passing, console).run()
            _keep_logs(settings, passing)
    return checks


def _merged(own: list[Check], told: list[Check]) -> list[Check]:
    """Return all checks, without our own of what a service looked at more closely."""
    names = {check.name for check in told}
    return [check for check in own if not check.ok or check.name not in names] + told


def _keep_logs(settings: Settings, passing: Settings) -> None:
    """Keep the services' logs where a remedy sends the reader."""
    for service in CHECKERS:
        kept = settings.log_path(service)
        if passing.log_path(service).exists():
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with kept.open("ab") as log:
                log.write(passing.log_path(service).read_bytes())


def _ask(settings: Settings, *, force: bool) -> list[Check]:
    with mesh(settings) as services:
        return service_checks(services, force=force)


@contextmanager
def _passing_settings(settings: Settings) -> Iterator[Settings]:
    """Give settings in folders of their own, removed at the end."""
    home = Path(tempfile.mkdtemp(prefix="aether-doctor-", dir="/run"))
    try:
        runtime = home / "run"
        yield dataclasses.replace(
            settings,
            runtime_dir=runtime,
            state_dir=home / "state",
            orchestrator_id=orchestrator_id(runtime),
        )
    finally:
        shutil.rmtree(home, ignore_errors=True)


@contextmanager
def _remembered(settings: Settings, passing: Settings) -> Iterator[None]:
    """Lend the trial that this boot has seen pass, and keep the one that passes now."""
    kept, lent = settings.state_dir / TRIAL, passing.state_dir / TRIAL
    if kept.exists():
        lent.parent.mkdir(mode=0o700)
        shutil.copy(kept, lent)
    yield
    if lent.exists():
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(lent, kept)


@contextmanager
def _services(settings: Settings) -> Iterator[None]:
    settings.write()
    with ExitStack() as stack:
        started = {name: stack.enter_context(_service(settings, name)) for name in CHECKERS}
        for name, process in started.items():
            _wait_serving(settings, name, process)
        yield


@contextmanager
def _service(settings: Settings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = start_service(settings, name)
    try:
        yield process
    finally:
        _end(process)


def _wait_serving(settings: Settings, name: str, process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_TIMEOUT
    while time.monotonic() < deadline and process.poll() is None:
        try:
            if is_serving(settings, name, timeout=PROBE):
                return
        except AetherlessError:
            continue  # not yet; its end and the deadline are looked at above
    status = process.poll()
    last = "no answer" if status is None else f"status {status}"
    raise orchestrator.last_words(settings, name, last)


def _end(process: subprocess.Popen[bytes]) -> None:
    # SAFETY: our own child that was not reaped yet, so the pid is its and more than 1.
    if process.pid <= 1 or process.poll() is not None:
        return
    os.kill(process.pid, signal.SIGTERM)
    try:
        process.wait(GRACE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(GRACE)
