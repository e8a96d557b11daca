# SPDX-License-Identifier: Apache-2.0
"""Taking up an instance that an earlier process of the service left alive."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_snapshotter.instance import Instance
from aetherless_snapshotter.sandbox import Sandbox

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from aetherless_snapshotter.description import Description
    from aetherless_snapshotter.sandbox_events import Event

    Follower = Callable[[Instance, Event], None]


@dataclass
class Adopted:
    """An instance with its living sandbox; call ``follow`` once it is visible."""

    instance: Instance
    sandbox: Sandbox
    _reports: _Reports

    def follow(self) -> None:
        """Take in the reports that came since the sandbox was connected, and all later ones."""
        self._reports.open()


class _Reports:
    """Keeps reports back until the instance stands as its sandbox said it does."""

    def __init__(self, instance: Instance, follower: Follower) -> None:
        self._instance = instance
        self._follower = follower
        self._early: list[Event] | None = []
        self._lock = threading.RLock()

    def take(self, event: Event) -> None:
        """Keep a report, or hand it on."""
        with self._lock:
            if self._early is not None:
                self._early.append(event)
            else:
                self._follower(self._instance, event)

    def open(self) -> None:
        """Hand on what was kept, in order, and keep nothing any more."""
        with self._lock:
            early, self._early = self._early or [], None
            for event in early:
                self._follower(self._instance, event)


def adopt(folder: Path, description: Description, follower: Follower) -> Adopted:
    """Connect to the sandbox in ``folder`` and learn what it does.

    Raises:
        SandboxError: it does not live, or does not answer.
    """
    instance = Instance(
        folder.name,
        description.workload,
        description.role,
        description.snapshot,
        description.command,
        description.create_time_ns,
    )
    reports = _Reports(instance, follower)
    sandbox = Sandbox.adopt(folder, reports.take)
    instance.adopt(sandbox.status(), sandbox.wakes_since(0), clock_offset())
    return Adopted(instance, sandbox, reports)


def clock_offset() -> int:
    """Return the realtime clock minus the monotonic one, in nanoseconds."""
    return time.time_ns() - time.monotonic_ns()
