# SPDX-License-Identifier: Apache-2.0
"""One server per socket: an flock on a file beside it."""

from __future__ import annotations

import fcntl
import os
from contextlib import contextmanager
from typing import TYPE_CHECKING

from aetherless_common.errors import FailedPrecondition
from aetherless_common.proc import ProcessRef

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless_common.settings import Settings


@contextmanager
def service_lock(settings: Settings, service: str) -> Iterator[None]:
    """Hold the lock of a service; its socket and pid file are ours to make and to remove.

    The file is removed at the end, while the lock is held, so that nothing stays behind.

    Raises:
        FailedPrecondition: SERVICE_RUNNING, another process holds it.
    """
    path = settings.lock_path(service)
    descriptor = _locked(path, service, settings.pid_path(service))
    try:
        yield
    finally:
        path.unlink(missing_ok=True)
        os.close(descriptor)


def _locked(path: Path, service: str, pid_path: Path) -> int:
    """Return a descriptor that holds the lock of the file which is at ``path`` now."""
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            os.close(descriptor)
            raise _running(service, pid_path) from None
        # The holder before us may have removed the file after we opened it.
        if path.exists() and path.stat().st_ino == os.fstat(descriptor).st_ino:
            return descriptor
        os.close(descriptor)


def _running(service: str, pid_path: Path) -> FailedPrecondition:
    """Return the error for a service that lives already."""
    holder = ProcessRef.read(pid_path)
    return FailedPrecondition(
        "SERVICE_RUNNING",
        f"the {service} service runs already" + (f" as process {holder.pid}" if holder else ""),
        {"service": service, "pid": holder.pid if holder else "unknown"},
        remedy="end it with aetherctl down, or use another AETHER_RUNTIME_DIR",
    )
