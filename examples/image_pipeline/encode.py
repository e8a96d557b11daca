#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stage of the image pipeline: writes a PNG file."""

from __future__ import annotations

import stage
from picture import Picture, encode


def handle(data: bytes) -> bytes:
    """Writes a PNG file."""
    return encode(Picture.unpacked(data))


if __name__ == "__main__":
    stage.run(handle)
