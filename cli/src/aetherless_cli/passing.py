# SPDX-License-Identifier: Apache-2.0
"""Services for a moment, in folders of their own, of which nothing is left."""

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

from aetherless_cli import errors, orchestrator
from aetherless_cli.interruption import held_back, undisturbed
from aetherless_cli.removal import Removal
from aetherless_cli.supervisor import start_service
from aetherless_common.channels import is_serving
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import SERVICES, Settings, orchestrator_id

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from aetherless_cli.console import Console

START_TIMEOUT = 60.0
PROBE = 0.25
GRACE = 10.0


@contextmanager
def folders(settings: Settings, purpose: str) -> Iterator[Settings]:
    """Give settings in folders of their own, removed at the end.

    They stay when what the services made could not be removed: only they tell what that is.
    """
    home, kept = None, False
    try:
        with held_back():
            home = Path(tempfile.mkdtemp(prefix=f"aether-{purpose}-", dir="/run"))
        runtime = home / "run"
        yield dataclasses.replace(
            settings,
            runtime_dir=runtime,
            state_dir=home / "state",
            orchestrator_id=orchestrator_id(runtime),
        )
    except AetherlessError as error:
        kept = error.reason == "CLEANUP_FAILED"
        raise
    finally:
        if home is not None and not kept:
            with undisturbed():
                shutil.rmtree(home, ignore_errors=True)


def take_down(own: Settings, console: Console) -> None:
    """Remove what the services in these folders made.

    Raises:
        Internal: CLEANUP_FAILED, with the command that tries it again.
    """
    with undisturbed():
        try:
            Removal(own, console).run()
        except AetherlessError as error:
            raise errors.passing_kept(own, error) from error


def keep_logs(settings: Settings, own: Settings) -> None:
    """Keep the services' logs where a remedy sends the reader."""
    for service in SERVICES:
        kept = settings.log_path(service)
        if own.log_path(service).exists():
            kept.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            with kept.open("ab") as log:
                log.write(own.log_path(service).read_bytes())


@contextmanager
def services(own: Settings, names: Sequence[str]) -> Iterator[None]:
    """Start services in these folders, and end them.

    Raises:
        AetherlessError: SERVICE_START_FAILED, with its last words.
    """
    own.write()
    with ExitStack() as stack:
        started = {name: stack.enter_context(_service(own, name)) for name in names}
        for name, process in started.items():
            _wait_serving(own, name, process)
        yield


@contextmanager
def _service(settings: Settings, name: str) -> Iterator[subprocess.Popen[bytes]]:
    process = None
    try:
        with held_back():
            process = start_service(settings, name)
        yield process
    finally:
        if process is not None:
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
