# SPDX-License-Identifier: Apache-2.0
"""Settings of an orchestrator of the test's own."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of an orchestrator of this test's own."""
    places = {
        "AETHER_RUNTIME_DIR": str(tmp_path / "run"),
        "AETHER_STATE_DIR": str(tmp_path / "lib"),
    }
    loaded = Settings.load(places)
    loaded.make_folders()
    return loaded
