# SPDX-License-Identifier: Apache-2.0
"""The instances that there are, each with its sandbox; one call at a time has one of them."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors, processes
from aetherless_snapshotter.instance import ARMED, RESTORING, RUNNING

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.builder import Built
    from aetherless_snapshotter.hostfiles import HostFile
    from aetherless_snapshotter.instance import Instance
    from aetherless_snapshotter.sandbox import Endpoint, Sandbox


@dataclass
class Live:
    """An instance with the sandbox it lives in, and what the sandbox was made from."""

    instance: Instance
    sandbox: Sandbox
    endpoint: Endpoint | None = None
    built: Built | None = None
    #: The host's files that a restore relies on; None until they were looked at.
    host_files: dict[str, HostFile] | None = None


class Table:
    """Living instances by id. Safe for use by many threads."""

    def __init__(self) -> None:
        self._live: dict[str, Live] = {}
        self._making: set[str] = set()
        self._lock = threading.Lock()

    def all(self) -> list[Live]:
        """Return all, by id."""
        with self._lock:
            return [live for _, live in sorted(self._live.items())]

    def get(self, instance_id: str) -> Live | None:
        """Return one; None when there is none."""
        with self._lock:
            return self._live.get(instance_id)

    def find(self, instance_id: str) -> Live:
        """Return one.

        Raises:
            NotFound: INSTANCE_NOT_FOUND.
        """
        live = self.get(instance_id)
        if live is None:
            raise errors.instance_not_found(instance_id)
        return live

    def put(self, live: Live) -> None:
        """Make one visible."""
        with self._lock:
            self._live[live.instance.instance_id] = live

    def drop(self, instance_id: str) -> None:
        """Forget one, if it is there."""
        with self._lock:
            self._live.pop(instance_id, None)

    def close(self) -> None:
        """Let go of all sandboxes without ending them."""
        with self._lock:
            for live in self._live.values():
                live.sandbox.close()
            self._live.clear()

    @contextmanager
    def working_on(self, instance_id: str) -> Iterator[Live]:
        """Have an instance for one call alone.

        Raises:
            NotFound: INSTANCE_NOT_FOUND.
            Aborted: OPERATION_IN_PROGRESS.
        """
        live = self.find(instance_id)
        if not live.instance.busy.acquire(blocking=False):
            raise errors.operation_in_progress(live.instance.name)
        try:
            yield live
        finally:
            live.instance.busy.release()

    @contextmanager
    def making_of(self, instance_id: str) -> Iterator[None]:
        """Have an id for one making alone.

        Raises:
            Aborted: OPERATION_IN_PROGRESS.
        """
        with self._lock:
            if instance_id in self._making:
                raise errors.operation_in_progress(f"instances/{instance_id}")
            self._making.add(instance_id)
        try:
            yield
        finally:
            with self._lock:
                self._making.discard(instance_id)


def with_root(instance: Instance) -> instance_pb2.Instance:
    """Return an instance with its root's process id on this host."""
    message = instance.message()
    message.root_pid = processes.host_pid(message.init_pid, message.sandbox_root_pid)
    return message


def with_memory(instance: Instance) -> instance_pb2.Instance:
    """Return an instance with what only the kernel knows: process ids and memory."""
    message = with_root(instance)
    if message.state in (ARMED, RESTORING, RUNNING) and message.init_pid > 1:
        used = processes.memory(message.init_pid)
        message.unique_memory_bytes = used.unique
        message.shared_memory_bytes = used.shared
    return message
