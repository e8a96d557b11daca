# SPDX-License-Identifier: Apache-2.0
"""SIGKILL of either side of a channel, at any instruction of its work."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]
PROGRAM = ROOT / "services" / "ipc" / "ring" / "native" / "check" / "death.c"
KILLS = 200


def test_death_at_any_instruction_leaves_whole_records(tmp_path: Path) -> None:
    """A side is stepped through its work; after each step the other finds what was finished."""
    program = tmp_path / "death"
    command = ["gcc", "-O2", "-Wall", "-Wextra", "-Werror", "-o", str(program), str(PROGRAM)]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([program], capture_output=True, text=True, timeout=120, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert [line.split(":")[0] for line in done.stdout.splitlines()] == ["producer", "consumer"]


def test_who_is_left_is_told_and_lets_go() -> None:
    """The short form of what ``make soak`` does ten thousand times."""
    done = subprocess.run(
        [sys.executable, "-m", "soak.rings", "--kills", str(KILLS)],
        env={**os.environ, "PYTHONPATH": str(ROOT / "tests")},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
