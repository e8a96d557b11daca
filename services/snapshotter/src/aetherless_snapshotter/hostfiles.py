# SPDX-License-Identifier: Apache-2.0
"""The host's own files that a snapshot relies on, and whether they still are what they were.

A restore maps program files (libraries, the interpreter) from where they were, and takes what the
program wrote of them from the images: the two must fit. CRIU refuses a file of another size, and a
program of another build id; it looks only once a client waits. Here the same is found out before,
and cheaply: as long as nothing about a file's inode has changed, its content has not.
"""

from __future__ import annotations

import stat
import struct
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import os
    from collections.abc import Iterator, Mapping

_HEAD_BYTES = 1 << 16  # the notes of a program lie at its beginning
_ELF_64_LITTLE = b"\x7fELF\x02\x01"
_NOTE_SEGMENT = 4
_BUILD_ID = 3


@dataclass(frozen=True)
class HostFile:
    """One file of the host as it was when the program was dumped.

    Attributes:
        program: it is mapped privately, as programs are; of others only the size matters.
        build_id: of a program with one, in hexadecimal digits; else empty.
    """

    size: int
    inode: int
    mtime_ns: int
    ctime_ns: int
    program: bool
    build_id: str

    @classmethod
    def of(cls, path: Path, *, program: bool) -> HostFile:
        """Record a file.

        Raises:
            OSError: it can't be read.
        """
        status = path.stat()
        return cls(
            status.st_size,
            status.st_ino,
            status.st_mtime_ns,
            status.st_ctime_ns,
            program,
            build_id(path) if program else "",
        )

    def look(self, path: Path) -> HostFile | tuple[str, str]:
        """Return a file as it is now; what is expected and found when it does not fit any more."""
        try:
            if self._is_same(path.stat()):
                return self
            found = HostFile.of(path, program=self.program)
        except OSError as error:
            return "a file", error.strerror or str(error)
        return self._change(found) or found

    def _change(self, found: HostFile) -> tuple[str, str] | None:
        if found.size != self.size:
            return f"{self.size} bytes", f"{found.size} bytes"
        if found.build_id != self.build_id:
            return f"build id {self.build_id or 'none'}", f"build id {found.build_id or 'none'}"
        if self.program and not self.build_id and found.mtime_ns != self.mtime_ns:
            return f"written at {self.mtime_ns} ns", f"written at {found.mtime_ns} ns"
        return None

    def _is_same(self, status: os.stat_result) -> bool:
        seen = (status.st_size, status.st_ino, status.st_mtime_ns, status.st_ctime_ns)
        return seen == (self.size, self.inode, self.mtime_ns, self.ctime_ns)


def record(names: Mapping[str, bool], inside: Path) -> dict[str, HostFile]:
    """Record those of a sandbox's files that are the host's own, under their names.

    Args:
        names: the files by their absolute paths in the sandbox, and whether each is a program.
        inside: the sandbox's root as the host sees it.
    """
    found = {}
    for name, program in names.items():
        path = Path(name)
        try:
            there, here = (inside / name.removeprefix("/")).lstat(), path.lstat()
            same = (there.st_dev, there.st_ino) == (here.st_dev, here.st_ino)
            if same and stat.S_ISREG(here.st_mode):
                found[name] = HostFile.of(path, program=program)
        except OSError:
            continue  # it is the sandbox's own, or gone: CRIU keeps what was removed
    return found


def changes(files: dict[str, HostFile]) -> Iterator[tuple[str, str, str]]:
    """Yield name, expectation and finding of each recorded file that does not fit any more.

    One that fits although it was touched is kept as it is now, and not read again at each look.
    """
    for name, file in list(files.items()):
        found = file.look(Path(name))
        if isinstance(found, HostFile):
            files[name] = found
        else:
            yield name, *found


def build_id(path: Path) -> str:
    """Return the GNU build id of a 64-bit little-endian ELF file (elf(5)); "" when it has none.

    Raises:
        OSError: it can't be read.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if not head.startswith(_ELF_64_LITTLE):
        return ""
    try:
        (table,) = struct.unpack_from("<Q", head, 32)
        size, count = struct.unpack_from("<HH", head, 54)
        for number in range(count):
            kind, _, offset, _, _, length = struct.unpack_from(
                "<IIQQQQ", head, table + number * size
            )
            if kind == _NOTE_SEGMENT and (found := _note(head[offset : offset + length])):
                return found.hex()
    except struct.error:
        pass  # cut short, or its notes lie further behind
    return ""


def _note(notes: bytes) -> bytes:
    """Return the build id among some notes; empty when it is not there.

    Raises:
        struct.error: they are cut short.
    """
    position = 0
    while position < len(notes):
        name_size, size, kind = struct.unpack_from("<III", notes, position)
        position += 12
        name = notes[position : position + name_size]
        position += -(-name_size // 4) * 4
        if kind == _BUILD_ID and name == b"GNU\0":
            return notes[position : position + size]
        position += -(-size // 4) * 4
    return b""
