# SPDX-License-Identifier: Apache-2.0
"""What every test shares: the repository's root, and when a root test is skipped."""

from __future__ import annotations

import faulthandler
import os
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
EXIT_S = 60.0


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


def pytest_unconfigure() -> None:
    """Bound the interpreter's exit: threads that a test left are shown, and the run has failed."""
    faulthandler.dump_traceback_later(EXIT_S, exit=True, file=sys.__stderr__)
