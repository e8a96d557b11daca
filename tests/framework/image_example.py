# SPDX-License-Identifier: Apache-2.0
"""The image pipeline of the examples, with the client library beside its handlers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from .calls import LIBRARIES
from .mesh import REPOSITORY, Orchestrator, free_port

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = REPOSITORY / "examples"
FOLDER = "image_pipeline"
DECODE = "8091"
PORTS = (DECODE, "8092", "8093")
COMPARE_S = 120


def up(mesh: Orchestrator) -> str:
    """Bring a copy of the example up, with free ports; return where its first function listens."""
    mesh.config, ports = _copied(mesh.home)
    mesh.up()
    return f"http://localhost:{ports[DECODE]}"


def compare(mesh: Orchestrator, decode: str, *options: str) -> str:
    """Run the example's own comparison; return what it prints."""
    done = subprocess.run(
        [sys.executable, str(mesh.home / FOLDER / "compare.py"), "--decode", decode, *options],
        env=mesh.environment,
        stdout=subprocess.PIPE,
        text=True,
        timeout=COMPARE_S,
        check=True,
    )
    return done.stdout


def _copied(home: Path) -> tuple[Path, dict[str, int]]:
    """Copy the example with free ports; return the configuration, and the ports by its own."""
    ports = {port: free_port() for port in PORTS}
    ignored = shutil.ignore_patterns("__pycache__", "aetherless_*")
    folder = home / FOLDER
    shutil.copytree(EXAMPLES / FOLDER, folder, ignore=ignored)
    for library in LIBRARIES:
        shutil.copytree(library, folder / library.name)
    text = (EXAMPLES / "image_pipeline.yaml").read_text()
    for port, free in ports.items():
        text = text.replace(port, str(free))
    config = home / "image_pipeline.yaml"
    config.write_text(text)
    return config, ports
