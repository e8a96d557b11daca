#!/usr/bin/python3
# SPDX-License-Identifier: Apache-2.0
"""A stage of the image pipeline: reads a PNG file."""

from __future__ import annotations

import stage
from picture import decode


def handle(data: bytes) -> bytes:
    """Reads a PNG file."""
    return decode(data).packed()


if __name__ == "__main__":
    stage.run(handle)
