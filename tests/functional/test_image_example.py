# SPDX-License-Identifier: Apache-2.0
"""The image pipeline as a user runs it, with the client library beside its handlers."""

from __future__ import annotations

import subprocess

from framework.guard import unchanged_host
from framework.image_example import compare, up
from framework.mesh import Orchestrator

PNG = b"\x89PNG\r\n\x1a\n"


def test_the_image_pipeline() -> None:
    """Both ways make the same of a picture: half the size, and half of that again."""
    with unchanged_host(), Orchestrator() as mesh:
        decode = up(mesh)
        small = mesh.home / "small.png"
        printed = compare(mesh, decode, "--count", "2", "--save", str(small))
        assert [line.split()[0] for line in printed.splitlines()] == ["pipeline", "HTTP"]
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
