# SPDX-License-Identifier: Apache-2.0
"""Keeps functions' logs below their cap: woken by the kernel when one was written to.

An idle host costs nothing; a function that floods its log is let go on, and has its log cut many
times a second.
"""

from __future__ import annotations

import ctypes
import os
import select
import struct
from typing import TYPE_CHECKING

import structlog

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

log = structlog.get_logger()
SUFFIX = ".log"
_IN_MODIFY = 0x2
_IN_NONBLOCK = 0o4000
_IN_CLOEXEC = 0o2000000
_EVENT = struct.Struct("=iIII")
_EVENTS_BYTES = 1 << 16
#: How long is waited after a look, so that a flood of writes does not mean a flood of looks.
_PAUSE_SECONDS = 0.02
_libc = ctypes.CDLL(None, use_errno=True)


class Rotation:
    """A watch of a folder's logs; ``run`` belongs to a thread of its own.

    Args:
        folder: where the logs are; it exists.
        cut: cuts a log that is too long, and tells whether it was.

    Raises:
        OSError: the kernel refuses the watch.
    """

    def __init__(self, folder: Path, cut: Callable[[Path], bool]) -> None:
        self._folder = folder
        self._cut = cut
        self._watch = _checked(_libc.inotify_init1(_IN_NONBLOCK | _IN_CLOEXEC))
        _checked(_libc.inotify_add_watch(self._watch, os.fsencode(folder), _IN_MODIFY))
        self._told, self._tell = os.pipe2(os.O_CLOEXEC)

    def stop(self) -> None:
        """End ``run``."""
        os.write(self._tell, b"x")

    def run(self) -> None:
        """Cut what is too long already, then what grows too long, until told to stop."""
        for path in self._folder.glob(f"*{SUFFIX}"):
            self._rotate(path.name)
        while self._wait():
            for name in self._written():
                self._rotate(name)
        for descriptor in (self._watch, self._told, self._tell):
            os.close(descriptor)

    def _wait(self) -> bool:
        """Wait for writes, and a little more; False when told to stop."""
        ready = select.select([self._watch, self._told], [], [])[0]
        return (
            self._told not in ready and not select.select([self._told], [], [], _PAUSE_SECONDS)[0]
        )

    def _written(self) -> set[str]:
        """Return the names of the files that were written to; all of them after an overflow."""
        data = os.read(self._watch, _EVENTS_BYTES)
        names, position = set(), 0
        while position < len(data):
            watch, _, _, length = _EVENT.unpack_from(data, position)
            position += _EVENT.size
            if watch < 0:
                return {path.name for path in self._folder.iterdir()}
            names.add(os.fsdecode(data[position : position + length].rstrip(b"\0")))
            position += length
        return names

    def _rotate(self, name: str) -> None:
        """Cut one log; one that can't be is left for its next write."""
        if not name.endswith(SUFFIX):
            return
        try:
            if self._cut(self._folder / name):
                log.debug("log rotated", file=name)
        except OSError as error:
            log.warning("log not rotated", file=name, error=str(error))


def _checked(result: int) -> int:
    """Return a C call's result; OSError with errno when it is -1."""
    if result == -1:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))
    return result
