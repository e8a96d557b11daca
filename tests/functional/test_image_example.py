# SPDX-License-Identifier: Apache-2.0
"""The image pipeline as a user runs it, with the client library beside its handlers."""

from __future__ import annotations

import subprocess
import sys

from framework.guard import unchanged_host
from framework.image_example import DECODE, copied
from framework.mesh import Orchestrator

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_image_pipeline() -> None:
    """Both ways make the same of a picture: half the size, and half of that again."""
    with unchanged_host(), Orchestrator() as mesh:
        mesh.config, ports = copied(mesh.home)
        mesh.up()
        small = mesh.home / "small.png"
        compare = [sys.executable, str(mesh.home / "image_pipeline" / "compare.py")]
        where = ["--decode", f"http://localhost:{ports[DECODE]}"]
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
