# SPDX-License-Identifier: Apache-2.0
"""Makes a host ready to be measured: memory that a guest never touched costs its first user."""

from __future__ import annotations

import mmap

PAGE = 4096
CHUNK = 64 << 20


def touch_memory(mebibytes: int) -> None:
    """Write to that much memory, page by page, and give it back."""
    chunks = []
    for _ in range(max(1, (mebibytes << 20) // CHUNK)):
        chunk = mmap.mmap(-1, CHUNK)
        for place in range(0, CHUNK, PAGE):
            chunk[place] = 1
        chunks.append(chunk)
    for chunk in chunks:
        chunk.close()
