# SPDX-License-Identifier: Apache-2.0
"""Measures the rings beside other ways to pass bytes between two processes of one host."""

from __future__ import annotations

import json
import os
import subprocess
from typing import Any

from bench import INSTALLED, REPOSITORY

HERE = REPOSITORY / "bench" / "rings"
RING = REPOSITORY / "services" / "ipc" / "ring"
TIMEOUT_S = 600


def in_c(name: str) -> dict[str, Any]:
    """Build and run a program in C; return what it prints."""
    program = INSTALLED / f"ring_{name}"
    command = ["gcc", "-O3", "-Wall", "-o", str(program), str(HERE / f"{name}.c")]
    subprocess.run(command, check=True, timeout=60)
    done = subprocess.run([str(program)], check=True, capture_output=True, timeout=90)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure() -> dict[str, Any]:
    """Measure in the interpreter of build/bench, which has the other libraries."""
    python = INSTALLED / "venv" / "bin" / "python"
    path = f"{RING / 'src'}:{REPOSITORY}"
    done = subprocess.run(
        [str(python), "-m", "bench.rings.run"],
        env={**os.environ, "PYTHONPATH": path},
        stdout=subprocess.PIPE,
        check=True,
        timeout=TIMEOUT_S,
    )
    found: dict[str, Any] = json.loads(done.stdout)
    return found | {"c_loop": in_c("loop"), "pingpong": in_c("pingpong")}
