# SPDX-License-Identifier: Apache-2.0
"""Takes an orchestrator down: ends what lives, then lets each service remove what it owns.

Works when nothing lives any more, and goes on after a failure, so that as much as possible goes.
"""

from __future__ import annotations

import shutil
import signal
import subprocess
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_cli import errors, supervisor
from aetherless_common.proc import ProcessRef
from aetherless_common.settings import SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_cli.console import Console
    from aetherless_common.errors import AetherlessError

CLEANUP_ORDER = ("registry", "ipc", "snapshotter", "netplane")
CLEANUP_TIMEOUT = 120.0
SUPERVISOR_GRACE = 25.0  # it gives the services 10 s, then 10 s more after SIGKILL
SERVICE_GRACE = 10.0
KILL_GRACE = 10.0
ATTEMPTS = 5  # a service that was just starting may hold its lock once more
SERVICE_LOCKED = 6  # the exit status of FAILED_PRECONDITION
MOUNTS = Path("/proc/self/mountinfo")


@dataclass
class Removal:
    """One ``down``: what it ended, and what it could not remove."""

    settings: Settings
    console: Console
    ended: list[str] = field(default_factory=list)
    failures: list[AetherlessError] = field(default_factory=list)

    def run(self, *, keep_snapshots: bool = False) -> bool:
        """Take everything down; tell whether anything was running.

        Raises:
            Internal: CLEANUP_FAILED, the first thing that could not be removed.
        """
        self._end("supervisor", SUPERVISOR_GRACE)
        for service in SERVICES:
            self._end(service, SERVICE_GRACE)
        for service in CLEANUP_ORDER:
            if service == "registry" and keep_snapshots:
                continue  # a snapshot is of no use without the function and revision it is of
            self._clean_up(service, keep_snapshots=keep_snapshots)
        if not keep_snapshots:
            self._remove_snapshots()
        self._remove_runtime_files()
        if self.failures:
            for failure in self.failures[1:]:
                self.console.line(f"{failure.reason}: {failure.message}", reason=failure.reason)
            raise self.failures[0]
        return bool(self.ended)

    def _end(self, name: str, grace: float) -> None:
        """End a process by its pid file: SIGTERM, then SIGKILL."""
        process = ProcessRef.read(self.settings.pid_path(name))
        # SAFETY: ProcessRef refuses a pid of 1 or less, and compares the start time.
        if process is None or process.pid <= 1 or not process.alive():
            return
        self.console.passing(f"ending the {name}")
        process.signal(signal.SIGTERM)
        if not process.wait(grace):
            self.console.line(f"the {name} does not end by itself and is killed", service=name)
            process.signal(signal.SIGKILL)
            process.wait(KILL_GRACE)
        self.ended.append(name)

    def _clean_up(self, service: str, *, keep_snapshots: bool) -> None:
        self.console.passing(f"removing what the {service} owns")
        for attempt in range(ATTEMPTS):
            status, output = self._run_cleanup(service, keep_snapshots=keep_snapshots)
            if status == 0:
                return
            if status != SERVICE_LOCKED or "SERVICE_RUNNING" not in output:
                break
            time.sleep(0.2 * (attempt + 1))
            self._end(service, SERVICE_GRACE)
        cause = f"its clean-up ended with status {status}"
        self.failures.append(errors.cleanup_failed(f"what the {service} owns", cause, output))

    def _run_cleanup(self, service: str, *, keep_snapshots: bool) -> tuple[int, str]:
        environment = supervisor.environment(self.settings)
        if keep_snapshots:
            environment["AETHER_KEEP_SNAPSHOTS"] = "1"
        try:
            done = subprocess.run(
                [sys.executable, "-P", "-m", f"aetherless_{service}", "--cleanup"],
                cwd="/",
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                errors="replace",
                start_new_session=True,
                timeout=CLEANUP_TIMEOUT,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return -1, f"no end after {CLEANUP_TIMEOUT:.0f} s"
        return done.returncode, "\n".join(done.stdout.splitlines()[-12:])

    def _remove_snapshots(self) -> None:
        root = self.settings.snapshot_root
        try:
            if root.exists():
                shutil.rmtree(root)
            _remove_if_empty(root.parent)
        except OSError as error:
            self.failures.append(errors.cleanup_failed(str(root), str(error)))

    def _remove_runtime_files(self) -> None:
        """Remove our files from the runtime folder, and the folder when nothing else is in it."""
        folder = self.settings.runtime_dir
        if not folder.exists():
            return
        mounted = list(_mounts_below(folder))
        if mounted:
            what = ", ".join(mounted)
            self.failures.append(errors.cleanup_failed(what, "it is still mounted"))
            return
        for path in self._runtime_files():
            path.unlink(missing_ok=True)
        for name in ("instances", "bpf"):
            _remove_if_empty(folder / name)
        left = sorted(entry.name for entry in folder.iterdir())
        if left:
            cause = f"it still holds {', '.join(left[:5])}"
            self.failures.append(errors.cleanup_failed(str(folder), cause))
            return
        folder.rmdir()

    def _runtime_files(self) -> Iterator[Path]:
        for name in (*SERVICES, "supervisor"):
            yield self.settings.pid_path(name)
            yield self.settings.lock_path(name)
            yield self.settings.socket_path(name)
        yield self.settings.settings_path
        yield supervisor.status_path(self.settings)


def _remove_if_empty(folder: Path) -> None:
    """Remove a folder of ours unless something, or somebody else's snapshot, is in it."""
    if folder.is_dir() and not folder.is_mount() and not any(folder.iterdir()):
        folder.rmdir()


def _mounts_below(folder: Path) -> Iterator[str]:
    top = str(folder.resolve())
    for line in MOUNTS.read_text().splitlines():
        point = line.split()[4].encode().decode("unicode_escape")
        if point.startswith(f"{top}/"):
            yield point
