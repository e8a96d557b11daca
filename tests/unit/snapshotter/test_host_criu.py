# SPDX-License-Identifier: Apache-2.0
"""CRIU on the host's side of a sandbox, as a dump runs it."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework.sandbox_world import Events, SandboxWorld, sandbox_world

if TYPE_CHECKING:
    import subprocess
    from collections.abc import Callable, Iterator

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.sandbox import Sandbox

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SandboxWorld]:
    """Return a place for sandboxes."""
    with sandbox_world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(tmp_path: Path, make_workload: Callable[..., instance_pb2.Workload]) -> object:
    """Return a function whose folder is seen in the sandbox."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text("import time; time.sleep(100)\n")
    return make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))


@pytest.fixture
def made(place: SandboxWorld, workload: instance_pb2.Workload) -> Iterator[tuple[Sandbox, Events]]:
    """Return a fresh sandbox with its events."""
    sandbox, events = place.create("one", workload)
    yield sandbox, events
    sandbox.delete()


def test_host_criu_runs_inside(made: tuple[Sandbox, Events], place: SandboxWorld) -> None:
    """CRIU for the dump is in the sandbox's namespaces but not in its user namespace."""
    sandbox, _ = made
    binary = os.open(place.place.settings.prefix / "criu", os.O_RDONLY | os.O_CLOEXEC)
    process, connection = sandbox.spawn_host_criu(binary)
    os.close(binary)
    with connection:
        found = next(_child(process))
        for kind in ("net", "pid", "mnt"):
            inside = Path(f"/proc/{sandbox.init_pid}/ns/{kind}").stat().st_ino
            assert Path(f"/proc/{found}/ns/{kind}").stat().st_ino == inside
        own = Path("/proc/self/ns/user").stat().st_ino
        assert Path(f"/proc/{found}/ns/user").stat().st_ino == own
    process.wait(timeout=10)


def _child(process: subprocess.Popen[bytes]) -> Iterator[int]:
    """Yield the child of a process as soon as there is one."""
    path = Path(f"/proc/{process.pid}/task/{process.pid}/children")
    while process.poll() is None:
        yield from map(int, path.read_text().split())
