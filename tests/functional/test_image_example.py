# SPDX-License-Identifier: Apache-2.0
"""The image pipeline as a user runs it, with the client library beside its handlers."""

from __future__ import annotations

import shutil
import subprocess
import sys
from typing import TYPE_CHECKING

from framework.calls import LIBRARIES
from framework.guard import unchanged_host
from framework.mesh import REPOSITORY, Orchestrator, free_port

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = REPOSITORY / "examples"
PORTS = ("8091", "8092", "8093")
PNG = b"\x89PNG\r\n\x1a\n"


def copied(home: Path, ports: dict[str, int]) -> Path:
    """Copy the example with other ports than its own; return the configuration."""
    ignored = shutil.ignore_patterns("__pycache__", "aetherless_*")
    folder = home / "image_pipeline"
    shutil.copytree(EXAMPLES / "image_pipeline", folder, ignore=ignored)
    for library in LIBRARIES:
        shutil.copytree(library, folder / library.name)
    text = (EXAMPLES / "image_pipeline.yaml").read_text()
    for port, free in ports.items():
        text = text.replace(port, str(free))
    config = home / "image_pipeline.yaml"
    config.write_text(text)
    return config


def test_the_image_pipeline() -> None:
    """Both ways make the same of a picture: half the size, and half of that again."""
    ports = {port: free_port() for port in PORTS}
    with unchanged_host(), Orchestrator() as mesh:
        mesh.config = copied(mesh.home, ports)
        mesh.up()
        small = mesh.home / "small.png"
        compare = [sys.executable, str(mesh.home / "image_pipeline" / "compare.py")]
        where = ["--decode", f"http://localhost:{ports['8091']}"]
        done = subprocess.run(
            [*compare, "--count", "2", "--save", str(small), *where],
            env=mesh.environment,
            stdout=subprocess.PIPE,
            text=True,
            timeout=120,
            check=True,
        )
        assert [line.split()[0] for line in done.stdout.splitlines()] == ["pipeline", "HTTP"]
        assert size(small.read_bytes()) == (320, 240)
        smaller = subprocess.run(
            mesh.command("pipeline", "run", "image", "--file", str(small)),
            env=mesh.environment,
            stdout=subprocess.PIPE,
            timeout=60,
            check=True,
        )
        assert size(smaller.stdout) == (160, 120)
        failed = mesh.ctl("pipeline", "run", "image", "--data", "no picture")
        assert (failed.status, "not a PNG file" in failed.err) == (6, True)


def size(picture: bytes) -> tuple[int, int]:
    """Return width and height of a PNG file."""
    assert picture.startswith(PNG)
    return int.from_bytes(picture[16:20], "big"), int.from_bytes(picture[20:24], "big")
