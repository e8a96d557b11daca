# SPDX-License-Identifier: Apache-2.0
"""All checks of ``aetherctl doctor``, with the services started for a moment when need be."""

from __future__ import annotations

import shutil
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aetherless_cli import orchestrator, passing
from aetherless_cli.client import mesh
from aetherless_cli.output import remedy_of
from aetherless_cli.preflight import Check, check_host, missing
from aetherless_cli.session import service_checks
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.console import Console

TRIAL = "host-check.json"  # ARCHITECTURE.md, section 2
CHECKERS = ("snapshotter", "netplane")


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
    with passing.folders(settings, "doctor") as own, _remembered(settings, own):
        try:
            with passing.services(own, CHECKERS):
                console.passing("checkpointing and restoring a program")
                checks = _merged(checks, _ask(own, force=force))
        except AetherlessError as error:
            name = error.domain.removesuffix(".aetherless") or "services"
            checks.append(missing(name, error.message, remedy_of(error), error.reason))
        finally:
            passing.take_down(own, console)
            passing.keep_logs(settings, own)
    return checks


def _merged(own: list[Check], told: list[Check]) -> list[Check]:
    """Return all checks, without our own of what a service looked at more closely."""
    names = {check.name for check in told}
    return [check for check in own if not check.ok or check.name not in names] + told


def _ask(settings: Settings, *, force: bool) -> list[Check]:
    with mesh(settings) as services:
        return service_checks(services, force=force)


@contextmanager
def _remembered(settings: Settings, own: Settings) -> Iterator[None]:
    """Lend the trial that this boot has seen pass, and keep the one that passes now."""
    kept, lent = settings.state_dir / TRIAL, own.state_dir / TRIAL
    if kept.exists():
        lent.parent.mkdir(mode=0o700)
        shutil.copy(kept, lent)
    yield
    if lent.exists():
        settings.state_dir.mkdir(mode=0o700, parents=True, exist_ok=True)
        shutil.copy(lent, kept)
