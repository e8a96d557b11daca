# SPDX-License-Identifier: Apache-2.0
"""The orchestrator's own bpffs: pins in it live and end with the runtime folder."""

from __future__ import annotations

import ctypes
import os
import shutil
from pathlib import Path

from aetherless_netplane import errors

MNT_DETACH = 2
_libc = ctypes.CDLL(None, use_errno=True)


def is_mounted(path: Path) -> bool:
    """Tell whether a bpffs is mounted at exactly this path."""
    real = os.path.realpath(path)
    lines = Path("/proc/self/mounts").read_text().splitlines()
    return any(line.split()[1:3] == [_escaped(real), "bpf"] for line in lines)


def mount(path: Path) -> None:
    """Mount a bpffs, if none is there.

    Raises:
        FailedPrecondition: KERNEL_FEATURE_MISSING.
    """
    path.mkdir(mode=0o700, parents=True, exist_ok=True)
    if is_mounted(path):
        return
    if _libc.mount(b"bpf", os.fsencode(path), b"bpf", 0, b"mode=0700"):
        cause = os.strerror(ctypes.get_errno())
        remedy = "run as root, on a kernel built with CONFIG_BPF_SYSCALL=y"
        message = f"no bpffs can be mounted at {path}: {cause}"
        raise errors.kernel_feature_missing("bpffs", message, remedy)


def unmount(path: Path) -> None:
    """Remove the bpffs and its folder, if they are there; what was only pinned ends with it."""
    while is_mounted(path):
        for entry in filter(Path.is_dir, path.iterdir()):  # files are the kernel's own
            # SAFETY: path is a mounted bpffs, so this removes pins and nothing else.
            shutil.rmtree(entry)
        if _libc.umount2(os.fsencode(path), MNT_DETACH):
            number = ctypes.get_errno()
            raise errors.link_failed(f"unmounting {path}", number)
    if path.is_dir():
        path.rmdir()


def _escaped(path: str) -> str:
    """Return a path as /proc/self/mounts writes it."""
    for character in "\\ \t\n":
        path = path.replace(character, f"\\{ord(character):03o}")
    return path
