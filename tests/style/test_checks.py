# SPDX-License-Identifier: Apache-2.0
"""The static checks of ``make lint`` pass; generated code is among them."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]


@pytest.mark.timeout(600)
def test_static_checks() -> None:
    """Every check of deploy/lint.sh passes; its output names those that do not."""
    done = subprocess.run(
        [ROOT / "deploy" / "lint.sh"], capture_output=True, text=True, check=False, timeout=590
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_contributing_and_help_agree() -> None:
    """``make help`` lists the targets that CONTRIBUTING.md sends people to."""
    command = ["make", "-s", "-C", str(ROOT), "help"]
    shown = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    for target in ("setup", "run", "test", "gen", "fmt", "lint", "pins", "bench", "clean"):
        assert f"make {target} " in shown
