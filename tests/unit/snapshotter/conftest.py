# SPDX-License-Identifier: Apache-2.0
"""What the snapshotter's unit tests share."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_snapshotter import images
from framework.sandbox_world import Events, SandboxWorld, sandbox_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless_snapshotter.sandbox import Sandbox


@pytest.fixture
def make_workload(tmp_path: Path) -> Callable[..., instance_pb2.Workload]:
    """Return a maker of valid workloads whose fields a test may change."""

    def make(**fields: object) -> instance_pb2.Workload:
        workload = instance_pb2.Workload(
            function_id="hello",
            revision=1,
            handler_path=str(tmp_path / "handler.py"),
            memory_limit_bytes=64 << 20,
            trigger_port=8080,
            warmup=instance_pb2.Warmup(kind=instance_pb2.WARMUP_KIND_HTTP, path="/"),
        )
        workload.timeout.FromMilliseconds(10_000)
        workload.restore_timeout.FromMilliseconds(2_000)
        workload.MergeFrom(instance_pb2.Workload(**fields))  # type: ignore[arg-type]
        return workload

    return make


@pytest.fixture
def criu_modules(prefix: Path) -> None:
    """Make CRIU's generated modules importable."""
    images.load_modules(prefix)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Return a folder whose file system has room for 1 MiB."""
    place = tmp_path / "small"
    place.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=1m", "test", place], timeout=10, check=True)
    yield place
    subprocess.run(["umount", place], timeout=10, check=True)


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
