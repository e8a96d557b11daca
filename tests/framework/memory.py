# SPDX-License-Identifier: Apache-2.0
"""The memory of other processes as the kernel shows it: every area, and every byte of it."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator

_HEAD = re.compile(r"([0-9a-f]+)-([0-9a-f]+) (\S{4}) \S+ \S+ \d+\s*(.*)")
#: What a program asked for or can notice: no fork copy, no dump, locked, wiped on fork, (no) huge
#: pages, no reserve, growing, mergeable.
_FLAGS = frozenset({"dc", "dd", "lo", "wf", "hg", "nh", "nr", "gd", "mg"})
_CHUNK = 1 << 20
_RESERVATION = 1 << 32


@dataclass(frozen=True)
class Area:
    """Neighbouring areas of the same kind as one.

    Attributes:
        permissions: as in maps of proc(5), for example "rw-p".
        flags: those of smaps that a program can notice.
    """

    start: int
    end: int
    permissions: str
    flags: frozenset[str]


def areas(pid: int) -> list[Area]:
    """Return the areas of a process; those of the kernel's own data (vvar) are left out."""
    found: list[Area] = []
    for area in _areas(pid):
        last = found[-1] if found else None
        alike = last and (last.end, last.permissions, last.flags) == (
            area.start,
            area.permissions,
            area.flags,
        )
        if last and alike:
            found[-1] = Area(last.start, area.end, area.permissions, area.flags)
        else:
            found.append(area)
    return found


def _areas(pid: int) -> Iterator[Area]:
    """Yield the areas as the kernel lists them."""
    head: re.Match[str] | None = None
    for line in Path(f"/proc/{pid}/smaps").read_text().splitlines():
        if match := _HEAD.fullmatch(line):
            head = match
        elif line.startswith("VmFlags:") and head and not head[4].startswith(("[vvar", "[vsys")):
            flags = frozenset(line.split()[1:]) & _FLAGS
            yield Area(int(head[1], 16), int(head[2], 16), head[3], flags)


def contents(pid: int) -> dict[Area, str]:
    """Return the areas of a stopped or waiting process with a hash of all that each holds."""
    descriptor = os.open(f"/proc/{pid}/mem", os.O_RDONLY | os.O_CLOEXEC)
    try:
        return {area: _hash(descriptor, area) for area in areas(pid)}
    finally:
        os.close(descriptor)


def _hash(descriptor: int, area: Area) -> str:
    """Hash an area; an untouchable reservation of many GB holds nothing to hash."""
    digest = hashlib.sha256()
    if area.permissions.startswith("---") and area.end - area.start > _RESERVATION:
        return "reserved"
    for start in range(area.start, area.end, _CHUNK):
        digest.update(os.pread(descriptor, min(_CHUNK, area.end - start), start))
    return digest.hexdigest()
