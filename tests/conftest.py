# SPDX-License-Identifier: Apache-2.0
"""What every test shares: the repository's root, and when a root test is skipped."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent


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
