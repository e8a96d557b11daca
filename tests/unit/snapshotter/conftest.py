# SPDX-License-Identifier: Apache-2.0
"""What the snapshotter's unit tests share."""

from __future__ import annotations

import subprocess
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_snapshotter import images

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path


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
