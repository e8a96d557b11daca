# SPDX-License-Identifier: Apache-2.0
"""What functions write to their standard output and error: one capped file per function.

Golden and clones append to the same file, which a sandbox sees as a bind. CRIU records the path
and the offset of an open file, so a log is never renamed (see ``log_rotation``).
"""

from __future__ import annotations

import os
import threading
import time
from collections import Counter
from typing import TYPE_CHECKING

from aetherless_common.logfiles import MAX_LOG_BYTES, OLDER, rotate
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
        self._cut: Counter[Path] = Counter()  # bytes that each log lost to rotations
        self._lock = threading.Lock()

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
        """Remove a function's log, the older generation too; one that is not there is fine."""
        path = self.path(function_id)
        with self._lock:
            for file in (path, path.with_suffix(OLDER)):
                file.unlink(missing_ok=True)

    def last_lines(self, function_id: str, lines: int) -> bytes:
        """Return the last ``lines`` lines (all when negative); empty when there is no log."""
        try:
            with self.path(function_id).open("rb") as file:
                size = file.seek(0, os.SEEK_END)
                start = 0 if lines < 0 else _line_start(file.fileno(), size, lines)
                return os.pread(file.fileno(), size - start, start)
        except FileNotFoundError:
            return b""

    def position(self, function_id: str) -> int:
        """Return where the log ends now, in bytes; rotations do not take it back."""
        path = self.path(function_id)
        with self._lock:
            return self._cut[path] + _size(path)

    def since(self, function_id: str, position: int, most: int) -> bytes:
        """Return the last ``most`` bytes of what was written after ``position``.

        A rotation since put some of it into the older generation. A log that is shorter than it
        was, and not by a rotation, was truncated by its program: all of it counts.
        """
        path = self.path(function_id)
        with self._lock:
            size = _size(path)
            new = self._cut[path] + size - position
            if new < 0:
                new = size
            wanted = min(new, most)
            end = _last(path, min(wanted, size))
            return _last(path.with_suffix(OLDER), wanted - len(end)) + end

    def cut(self, path: Path) -> bool:
        """Cut a log that is too long; tell whether it was.

        Raises:
            OSError: it can't be cut.
        """
        with self._lock:
            lost = rotate(path, self._max_bytes)
            self._cut[path] += lost
        return lost > 0

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
        return Rotation(self._folder, self.cut)


def _size(path: Path) -> int:
    """Return a file's size in bytes; zero when there is none."""
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _last(path: Path, count: int) -> bytes:
    """Return the last ``count`` bytes of a file, fewer when it has no more."""
    if count <= 0 or not path.exists():
        return b""
    with path.open("rb") as file:
        start = max(0, file.seek(0, os.SEEK_END) - count)
        return os.pread(file.fileno(), count, start)


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
