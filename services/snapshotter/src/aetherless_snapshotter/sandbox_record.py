# SPDX-License-Identifier: Apache-2.0
"""What is on disk of a sandbox, and the removal of all that a sandbox is, alive or not."""

from __future__ import annotations

import json
import os
import select
import shutil
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING

from aetherless_common.proc import start_ticks
from aetherless_common.settings import write_atomically
from aetherless_snapshotter import cgroup as cgroups
from aetherless_snapshotter.cgroup import InstanceGroup
from aetherless_snapshotter.launcher import LAST_WORDS
from aetherless_snapshotter.sandbox_errors import SandboxError, SandboxGoneError

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path

RECORD = "instance.json"
_END_SECONDS = 10.0


@dataclass(frozen=True)
class Record:
    """What a later process of the service must know; on disk before the sandbox is used."""

    instance_id: str
    cgroup: str
    init_binary: str
    pid: int = 0
    start_time: int = 0

    def write(self, folder: Path) -> None:
        """Store it in the instance's folder."""
        write_atomically(folder / RECORD, json.dumps(asdict(self)) + "\n")

    @classmethod
    def read(cls, folder: Path) -> Record:
        """Return the stored record.

        Raises:
            SandboxGoneError: there is none that can be used.
        """
        try:
            return cls(**json.loads((folder / RECORD).read_text()))
        except (OSError, ValueError, TypeError) as error:
            raise SandboxGoneError(folder.name, "adopt", f"no usable {RECORD}: {error}") from error


def open_init(record: Record, folder: Path) -> int:
    """Return the pidfd of the recorded init.

    SAFETY: pid > 1, and the start time is compared while the pidfd holds the process.
    """
    if record.pid <= 1:
        raise SandboxGoneError(record.instance_id, "adopt", "it was never complete")
    try:
        pidfd = os.pidfd_open(record.pid)
    except OSError as error:
        raise SandboxGoneError(record.instance_id, "adopt", last_words(folder)) from error
    try:
        if start_ticks(record.pid) == record.start_time:
            return pidfd
    except ProcessLookupError:
        pass  # it ended just now
    os.close(pidfd)
    raise SandboxGoneError(record.instance_id, "adopt", last_words(folder))


def last_words(folder: Path) -> str:
    """Return what an init wrote before it died; "" when it was killed from outside."""
    try:
        return (folder / LAST_WORDS).read_text(errors="replace").strip()
    except FileNotFoundError:
        return ""


class _Inits(ExitStack):
    """Holds the living inits of some folders, to see them end.

    A dying process leaves its control group before it has let go of its namespaces.
    """

    def __init__(self, folders: Iterable[Path]) -> None:
        super().__init__()
        self._pidfds: list[int] = []
        for folder in folders:
            with suppress(SandboxGoneError):
                self._pidfds.append(open_init(Record.read(folder), folder))
                self.callback(os.close, self._pidfds[-1])

    def wait(self) -> None:
        """Wait until all have ended.

        Raises:
            TimeoutError: one still lives.
        """
        for pidfd in self._pidfds:
            poll = select.poll()
            poll.register(pidfd, select.POLLIN)
            if not poll.poll(_END_SECONDS * 1000):
                raise TimeoutError("the init does not end")


def delete_folder(folder: Path, cgroup: str) -> None:
    """End and remove the sandbox of a runtime folder, dead or half made. Idempotent.

    Raises:
        SandboxError: its processes do not end.
    """
    group = InstanceGroup(cgroup, folder.name)
    with _Inits([folder]) as inits:
        group.kill()
        try:
            group.remove()
            inits.wait()
        except TimeoutError as error:
            raise SandboxError(folder.name, "delete", str(error)) from error
    shutil.rmtree(folder, ignore_errors=not folder.exists())


def delete_all(runtime_dir: Path, cgroup: str) -> None:
    """End and remove every sandbox of the orchestrator, its control groups and folders.

    Nothing is mounted on the host for a sandbox: its mounts end with its namespaces.

    Raises:
        SandboxError: processes do not end.
    """
    instances = runtime_dir / "instances"
    folders = list(instances.iterdir()) if instances.is_dir() else []
    with _Inits(folders) as inits:
        try:
            cgroups.remove_all(cgroup)
            inits.wait()
        except TimeoutError as error:
            raise SandboxError(cgroup, "delete", str(error)) from error
    for folder in folders:
        shutil.rmtree(folder)
