# SPDX-License-Identifier: Apache-2.0
"""What every test shares: the repository's root, and when a root test is skipped."""

from __future__ import annotations

import faulthandler
import os
import threading
import time
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXIT_S = 60.0
STATUS = pytest.StashKey[int]()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests that need root when this is not root."""
    if os.geteuid() == 0:
        return
    skip = pytest.mark.skip(reason="needs root: run 'sudo make test'")
    for item in items:
        if item.get_closest_marker("root"):
            item.add_marker(skip)


@pytest.fixture(scope="session")
def repository() -> Path:
    """Return the root of the repository."""
    return REPOSITORY


@pytest.fixture(scope="session")
def prefix() -> Path:
    """Return the project's own prefix, where set-up put CRIU, the init and the BPF objects."""
    return REPOSITORY / ".prefix" / "lib" / "aetherless"


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """Note how the run ended, for a bounded exit."""
    session.config.stash[STATUS] = int(exitstatus)


def pytest_unconfigure(config: pytest.Config) -> None:
    """Bound the interpreter's exit: a thread that a test left would hold it for ever.

    After EXIT_S all threads are shown, and the run ends with the status that it had.
    """
    status = config.stash.get(STATUS, pytest.ExitCode.INTERNAL_ERROR)
    threading.Thread(target=_end, args=(status,), name="exit", daemon=True).start()


def _end(status: int) -> None:
    """End the process if it has not ended by itself."""
    time.sleep(EXIT_S)
    os.write(2, b"the interpreter does not end; its threads:\n")
    faulthandler.dump_traceback(2)
    os._exit(status)
