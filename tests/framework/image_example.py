# SPDX-License-Identifier: Apache-2.0
"""The image pipeline of the examples, with the client library beside its handlers."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING

from .calls import LIBRARIES
from .mesh import REPOSITORY, free_port

if TYPE_CHECKING:
    from pathlib import Path

EXAMPLES = REPOSITORY / "examples"
DECODE = "8091"
PORTS = (DECODE, "8092", "8093")


def copied(home: Path) -> tuple[Path, dict[str, int]]:
    """Copy the example with free ports; return the configuration, and the ports by its own."""
    ports = {port: free_port() for port in PORTS}
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
    return config, ports
