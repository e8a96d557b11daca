# SPDX-License-Identifier: Apache-2.0
"""References to processes, with real processes."""

from __future__ import annotations

import os
import signal
import subprocess
from typing import TYPE_CHECKING

import pytest

from aetherless_common.proc import ProcessRef, start_ticks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

WAIT_S = 20.0


@pytest.fixture
def child() -> Iterator[subprocess.Popen[bytes]]:
    """Run a child that waits; end it afterwards."""
    with subprocess.Popen(["sleep", "60"]) as process:
        yield process
        # SAFETY: our own child, by its handle.
        process.kill()


def test_signal_and_wait(child: subprocess.Popen[bytes]) -> None:
    """A signal reaches it; the wait sees its end; afterwards there is nobody to signal."""
    reference = ProcessRef.of(child.pid)
    assert reference.alive()
    assert not reference.wait(0)
    assert reference.signal(signal.SIGTERM)
    assert reference.wait(WAIT_S)
    assert not reference.alive()  # a zombie counts as ended
    child.wait(WAIT_S)
    assert not reference.signal(signal.SIGTERM)
    assert reference.wait(0)


def test_another_process_with_the_same_pid_is_left_alone(child: subprocess.Popen[bytes]) -> None:
    """A number that was given to another process since does not get the signal."""
    earlier = ProcessRef(child.pid, start_ticks(child.pid) - 1)
    assert not earlier.alive()
    assert not earlier.signal(signal.SIGKILL)
    assert child.poll() is None


@pytest.mark.parametrize("pid", [1, 0, -1, -2])
def test_pids_that_mean_many_or_init_are_refused(pid: int) -> None:
    """No signal and no wait is ever tried on them."""
    with pytest.raises(ValueError, match="refusing"):
        ProcessRef(pid, 0).signal(signal.Signals(signal.SIGCONT))
    with pytest.raises(ValueError, match="refusing"):
        ProcessRef(pid, 0).wait(0)


def test_pid_file(tmp_path: Path) -> None:
    """A reference comes back from its file; a missing or damaged file is nobody."""
    path = tmp_path / "x.pid"
    assert ProcessRef.read(path) is None
    path.write_text("{}")
    assert ProcessRef.read(path) is None
    ProcessRef.of(os.getpid()).write(path)
    assert ProcessRef.read(path) == ProcessRef.of(os.getpid())


def test_missing_process() -> None:
    """A process that was waited for has no start time."""
    process = subprocess.Popen(["true"])
    process.wait(WAIT_S)
    with pytest.raises(ProcessLookupError):
        ProcessRef.of(process.pid)
