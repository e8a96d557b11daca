#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stage of the image pipeline: halves a picture."""

from __future__ import annotations

import stage
from picture import Picture, halve


def handle(data: bytes) -> bytes:
    """Halves a picture."""
    return halve(Picture.unpacked(data)).packed()


if __name__ == "__main__":
    stage.run(handle)
