# SPDX-License-Identifier: Apache-2.0
"""What functions write to their standard output and error: one capped file per function.

Golden and clones append to the same file, which a sandbox sees as a bind. CRIU records the path
and the offset of an open file, so a log is never renamed (see ``log_rotation``).
"""

from __future__ import annotations

import os
import time
from typing import TYPE_CHECKING

from aetherless_common.logfiles import MAX_LOG_BYTES
from aetherless_snapshotter import errors
from aetherless_snapshotter.log_rotation import Rotation

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless_snapshotter.idranges import IdRange

_SANDBOX_UID = 1000
_POLL_SECONDS = 0.1
_BLOCK = 64 << 10


class Logs:
    """The logs of all functions, in one folder."""

    def __init__(self, folder: Path, max_bytes: int = MAX_LOG_BYTES) -> None:
        self._folder = folder
        self._max_bytes = max_bytes

    def path(self, function_id: str) -> Path:
        """Return where the function's log is."""
        return self._folder / f"{function_id}.log"

    def ensure(self, function_id: str, ids: IdRange) -> Path:
        """Make the function's log, writable by the handler's user, and return its path.

        A program may open ``/dev/stdout`` anew, so the file belongs to the handler's user.
        """
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        path = self.path(function_id)
        flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        descriptor = os.open(path, flags, 0o600)
        try:
            os.fchown(descriptor, ids.host_id(_SANDBOX_UID), ids.host_id(_SANDBOX_UID))
        finally:
            os.close(descriptor)
        return path

    def remove(self, function_id: str) -> None:
        """Remove a function's log; one that is not there is fine."""
        self.path(function_id).unlink(missing_ok=True)

    def last_lines(self, function_id: str, lines: int) -> bytes:
        """Return the last ``lines`` lines (all when negative); empty when there is no log."""
        try:
            with self.path(function_id).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = 0 if lines < 0 else _line_start(file.fileno(), size, lines)
                return os.pread(file.fileno(), size - start, start)
        except FileNotFoundError:
            return b""

    def size(self, function_id: str) -> int:
        """Return the log's present size in bytes; zero when there is none."""
        try:
            return self.path(function_id).stat().st_size
        except FileNotFoundError:
            return 0

    def since(self, function_id: str, offset: int, most: int) -> bytes:
        """Return the last ``most`` bytes of what was written after ``offset``.

        A log that is shorter than ``offset`` was truncated since: all of it counts.
        """
        size = self.size(function_id)
        if size == 0:
            return b""
        start = max(offset if offset <= size else 0, size - most)
        with self.path(function_id).open("rb") as file:
            return os.pread(file.fileno(), size - start, start)

    def tail(
        self, function_id: str, lines: int, *, follow: bool, alive: Callable[[], bool]
    ) -> Iterator[bytes]:
        """Yield the last ``lines`` lines and, with ``follow``, what is written while ``alive()``.

        Raises:
            NotFound: LOG_NOT_FOUND, the function never had a log.
        """
        path = self.path(function_id)
        if not path.exists():
            raise errors.log_not_found(function_id)
        with path.open("rb") as file:
            descriptor = file.fileno()
            position = file.seek(0, os.SEEK_END)
            start = 0 if lines < 0 else _line_start(descriptor, position, lines)
            yield from _blocks(descriptor, start, position)
            while follow and alive():
                size = os.fstat(descriptor).st_size
                position = position if position <= size else 0
                yield from _blocks(descriptor, position, size)
                position = size
                time.sleep(_POLL_SECONDS)

    def watch(self) -> Rotation:
        """Return what keeps the logs below their cap; not running yet."""
        self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return Rotation(self._folder, self._max_bytes)


def _line_start(descriptor: int, size: int, lines: int) -> int:
    """Return the offset at which the last ``lines`` lines of a file of ``size`` bytes begin."""
    found = 0
    position = size
    while position > 0:
        begin = max(0, position - _BLOCK)
        block = os.pread(descriptor, position - begin, begin)
        index = len(block)
        while (index := block.rfind(b"\n", 0, index)) >= 0:
            if begin + index == size - 1:  # the newline that ends the last line
                continue
            found += 1
            if found == lines:
                return begin + index + 1
        position = begin
    return 0


def _blocks(descriptor: int, start: int, end: int) -> Iterator[bytes]:
    """Yield the bytes of a file from ``start`` to ``end`` in pieces that fit into a message."""
    while start < end:
        block = os.pread(descriptor, min(_BLOCK, end - start), start)
        if not block:
            return
        yield block
        start += len(block)
