# SPDX-License-Identifier: Apache-2.0
"""Looking for jemalloc in what a process has mapped to run, whatever it maps."""

from __future__ import annotations

import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import allocators

if TYPE_CHECKING:
    from pathlib import Path

MAP = """
import mmap, os, sys
descriptor = os.open(sys.argv[1], os.O_RDONLY)
held = mmap.mmap(descriptor, 4096, mmap.MAP_PRIVATE, mmap.PROT_READ | mmap.PROT_EXEC)
print("mapped", flush=True)
sys.stdin.read()
"""


def counts(path: Path | str) -> bool:
    """Return whether a process that maps a file to run counts on zeros."""
    command = [sys.executable, "-c", MAP, str(path)]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as process:
        assert process.stdout
        assert process.stdin
        assert process.stdout.readline() == b"mapped\n"
        found = allocators.counting_on_zeros(process.pid)
        process.stdin.close()
    return bool(found)


@pytest.mark.parametrize(("content", "marked"), [(b"plain", False), (b"<jemalloc>: %s", True)])
def test_the_mark_is_found(tmp_path: Path, content: bytes, *, marked: bool) -> None:
    """In the file that is mapped, and only there."""
    program = tmp_path / "program"
    program.write_bytes(b"\0" * 5000 + content)
    assert counts(program) is marked


def test_a_device_has_no_end_and_is_not_read() -> None:
    """/dev/zero mapped to run is passed over."""
    assert counts("/dev/zero") is False


def test_a_file_too_large_to_look_through_counts(tmp_path: Path) -> None:
    """A sparse one costs nothing to make; looking through it would take for ever."""
    program = tmp_path / "program"
    with program.open("wb") as file:
        file.truncate(1 << 40)
    assert counts(program) is True
