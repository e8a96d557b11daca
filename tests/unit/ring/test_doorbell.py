# SPDX-License-Identifier: Apache-2.0
"""Doorbells that are rung without waiting, by a process that is wary of its peers."""

from __future__ import annotations

import errno
import fcntl
import os

import pytest

from aetherless_ring._native import be_wary, ring_doorbell

FULL = 2**64 - 2


def test_a_full_one() -> None:
    """Each ring counts, and none waits, also for a full counter without O_NONBLOCK."""
    be_wary()
    be_wary()
    bell = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
    try:
        for _ in range(100):
            ring_doorbell(bell)
        assert os.eventfd_read(bell) == 100
        fcntl.fcntl(bell, fcntl.F_SETFL, 0)
        os.eventfd_write(bell, FULL)
        for _ in range(3):
            ring_doorbell(bell)
        assert os.eventfd_read(bell) >= FULL
    finally:
        os.close(bell)


def test_none() -> None:
    """What is no eventfd, or closed, is refused."""
    be_wary()
    read, write = os.pipe()
    with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
        ring_doorbell(write)
    os.close(read)
    os.close(write)
    with pytest.raises(OSError, match=os.strerror(errno.EBADF)):
        ring_doorbell(write)
