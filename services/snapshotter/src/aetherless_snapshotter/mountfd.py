# SPDX-License-Identifier: Apache-2.0
"""Detached mounts and pinned BPF maps: system calls that Python's library does not have."""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

_SYS_BPF = {"x86_64": 321, "aarch64": 280}
_SYS_OPEN_TREE = 428
_SYS_MOUNT_SETATTR = 442
_AT_FDCWD = -100
_AT_EMPTY_PATH = 0x1000
_OPEN_TREE_CLONE = 1
_RDONLY, _NOSUID, _NODEV, _NOEXEC = 1, 2, 4, 8
_MS_PRIVATE = 1 << 18
_BPF_OBJ_GET = 7
_MAP_VALUE_SIZE = 32

_libc = ctypes.CDLL(None, use_errno=True)


class _MountAttr(ctypes.Structure):
    _fields_ = (
        ("set", ctypes.c_uint64),
        ("clear", ctypes.c_uint64),
        ("propagation", ctypes.c_uint64),
        ("userns", ctypes.c_uint64),
    )


class _ObjectGet(ctypes.Structure):
    _fields_ = (
        ("path", ctypes.c_uint64),
        ("fd", ctypes.c_uint32),
        ("flags", ctypes.c_uint32),
    )


def _call(path: Path, number: int, *arguments: object) -> int:
    result: int = _libc.syscall(ctypes.c_long(number), *arguments)
    if result < 0:
        code = ctypes.get_errno()
        raise OSError(code, os.strerror(code), str(path))
    return result


def open_read_only_mount(folder: Path) -> int:
    """Return a detached, read-only mount of just this folder, whose files may be mapped to run.

    The folder's own mount may be noexec (containers' /dev/shm is): memory that a program filled
    with code comes from there.

    Raises:
        OSError: there is no such folder, or the kernel refuses.
    """
    flags = ctypes.c_uint(_OPEN_TREE_CLONE | os.O_CLOEXEC)
    mount = _call(
        folder, _SYS_OPEN_TREE, ctypes.c_int(_AT_FDCWD), ctypes.c_char_p(os.fsencode(folder)), flags
    )
    attributes = _MountAttr(set=_RDONLY | _NOSUID | _NODEV, clear=_NOEXEC, propagation=_MS_PRIVATE)
    try:
        _call(
            folder,
            _SYS_MOUNT_SETATTR,
            ctypes.c_int(mount),
            ctypes.c_char_p(b""),
            ctypes.c_uint(_AT_EMPTY_PATH),
            ctypes.byref(attributes),
            ctypes.c_size_t(ctypes.sizeof(attributes)),
        )
    except OSError:
        os.close(mount)
        raise
    return mount


def open_state_map(pin: Path, slot: int) -> int:
    """Return a descriptor of the pinned state map, after a look at its shape.

    Raises:
        OSError: there is no such pin.
        ValueError: its values are not those of ARCHITECTURE.md section 5, or it has no such slot.
    """
    path = ctypes.create_string_buffer(os.fsencode(pin))
    request = _ObjectGet(path=ctypes.addressof(path))
    descriptor = _call(
        pin,
        _SYS_BPF[os.uname().machine],
        ctypes.c_int(_BPF_OBJ_GET),
        ctypes.byref(request),
        ctypes.c_uint(ctypes.sizeof(request)),
    )
    try:
        _check_state_map(descriptor, slot)
    except ValueError:
        os.close(descriptor)
        raise
    return descriptor


def _check_state_map(descriptor: int, slot: int) -> None:
    """SAFETY: the init reads and writes values of 32 bytes through the descriptor."""
    text = Path(f"/proc/self/fdinfo/{descriptor}").read_text()
    info = dict(line.split(":\t", 1) for line in text.splitlines() if ":\t" in line)
    if int(info.get("value_size", 0)) != _MAP_VALUE_SIZE:
        raise ValueError(f"its values have {info.get('value_size', 'no')} bytes, not 32")
    if not 0 <= slot < int(info.get("max_entries", 0)):
        raise ValueError(f"it has no slot {slot}")
