# SPDX-License-Identifier: Apache-2.0
"""The life of a service's process: ended, killed, doubled, cleaned up after."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_common import errors
from aetherless_common.channels import is_serving
from aetherless_common.proc import ProcessRef

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_common.settings import Settings

PROGRAM = Path(__file__).with_name("service_program.py")
WAIT_S = 20.0


def environment(settings: Settings) -> dict[str, str]:
    """Return the environment of a service's process."""
    return os.environ | {
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
    }


@contextmanager
def process(settings: Settings) -> Iterator[subprocess.Popen[str]]:
    """Run the test's service as a process of its own, until it serves."""
    with subprocess.Popen(
        [sys.executable, str(PROGRAM)],
        env=environment(settings),
        stderr=subprocess.PIPE,
        text=True,
    ) as child:
        try:
            assert is_serving(settings, "ipc", WAIT_S)
            yield child
        finally:
            # SAFETY: our own child, by its handle, not yet waited for.
            child.kill()


def test_sigterm_ends_a_process_cleanly(settings: Settings) -> None:
    """SIGTERM drains, removes socket, pid file and lock, and ends with status 0."""
    with process(settings) as child:
        child.send_signal(signal.SIGTERM)
        _, printed = child.communicate(timeout=WAIT_S)
    assert child.returncode == 0
    assert [line.split('"event": "')[1].split('"')[0] for line in printed.splitlines()] == [
        "serving",
        "draining",
        "stopped by the test's service",
        "ended",
    ]
    assert list(settings.runtime_dir.iterdir()) == []


def test_second_process_is_refused(settings: Settings) -> None:
    """A second server ends with the status of a failed precondition; the first serves on."""
    with process(settings):
        second = subprocess.run(
            [sys.executable, str(PROGRAM)],
            env=environment(settings),
            capture_output=True,
            text=True,
            timeout=WAIT_S,
            check=False,
        )
        assert is_serving(settings, "ipc", WAIT_S)
    assert second.returncode == errors.FailedPrecondition.exit_status
    assert "SERVICE_RUNNING" in second.stderr


def test_killed_process_is_followed_by_another(settings: Settings) -> None:
    """What SIGKILL leaves behind (socket, pid file, lock file) does not stop the next one."""
    with process(settings) as child:
        child.kill()
        child.wait(WAIT_S)
    assert settings.socket_path("ipc").exists()
    with process(settings) as child:
        assert ProcessRef.read(settings.pid_path("ipc")) == ProcessRef.of(child.pid)


def test_cleanup_removes_what_is_left(settings: Settings) -> None:
    """--cleanup after a SIGKILL leaves no file in the runtime folder."""
    with process(settings) as child:
        child.kill()
        child.wait(WAIT_S)
    done = subprocess.run(
        [sys.executable, str(PROGRAM), "--cleanup"],
        env=environment(settings),
        timeout=WAIT_S,
        check=False,
    )
    assert done.returncode == 0
    assert list(settings.runtime_dir.iterdir()) == []
