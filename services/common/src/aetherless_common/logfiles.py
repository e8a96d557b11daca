# SPDX-License-Identifier: Apache-2.0
"""Cuts log files that their writers keep open."""

from __future__ import annotations

import os
from contextlib import suppress
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

OLDER = ".log.1"
#: The size above which a log is cut, a service's or a function's; one older generation is kept.
MAX_LOG_BYTES = 16 << 20
_BLOCK = 1 << 20


def rotate(path: Path, cap: int) -> int:
    """Cut a log above its cap, keeping the end of it as one older generation.

    Whoever writes to it has it open, and for programs CRIU recorded the path, so it is copied and
    truncated. What is written meanwhile is copied too, until the older generation has twice the
    cap; what comes faster, or between the last look and the cut, is lost. Holes, as a program
    makes that does not append, have no bytes to count.

    Returns:
        How many bytes the log had when it was cut; 0 when it was not.
    """
    with suppress(FileNotFoundError):
        status = path.stat()
        if status.st_blocks * 512 > cap and status.st_size > cap:
            return _move_end(path, path.with_suffix(OLDER), cap)
    return 0


def _move_end(source: Path, target: Path, least: int) -> int:
    """Replace ``target`` by the last ``least`` bytes of ``source`` and what follows; empty it."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC
    with source.open("rb") as reader, open(os.open(target, flags, 0o600), "wb") as writer:  # noqa: PTH123 # a descriptor
        reader.seek(max(0, os.fstat(reader.fileno()).st_size - least))
        left = 2 * least
        while left and (block := reader.read(min(_BLOCK, left))):
            writer.write(block)
            left -= len(block)
        os.truncate(source, 0)
        return reader.tell()
