# SPDX-License-Identifier: Apache-2.0
"""Things that can't be checkpointed: each function gets hold of one and returns, or ends."""

from __future__ import annotations

import ctypes
import os
import signal
import socket
import struct
import sys

LIBC = ctypes.CDLL(None, use_errno=True)
MIB = 1 << 20
PTRACE_TRACEME = 0
IPPROTO_MPTCP = 262
SYS_IO_URING_SETUP, SYS_USERFAULTFD, SYS_PERF_EVENT_OPEN = 425, 323, 298
kept: list[object] = []


def checked(result: int) -> int:
    """Return a C call's result; end with its errno's words when it is -1."""
    if result == -1:
        sys.exit(f"faulty: {os.strerror(ctypes.get_errno())}")
    return result


def holds_a_ring() -> None:
    """Hold an io_uring."""
    kept.append(checked(LIBC.syscall(SYS_IO_URING_SETUP, 8, ctypes.create_string_buffer(120))))


def is_traced() -> None:
    """Be the debugger of a child."""
    if not os.fork():
        checked(LIBC.ptrace(PTRACE_TRACEME, 0, None, None))
        os.kill(os.getpid(), signal.SIGSTOP)
    os.wait3(os.WUNTRACED)


def leaves_an_orphan() -> None:
    """Put a helper into the background, where it has no parent any more, and go on."""
    if not os.fork():
        if os.fork():
            os._exit(0)
        os.setsid()
        while True:
            signal.pause()
    os.wait()


def shares_by_system_v() -> None:
    """Use System V shared memory."""
    number = checked(LIBC.shmget(0x5EED, MIB, 0o1600))
    LIBC.shmat.restype = ctypes.c_void_p
    kept.append(LIBC.shmat(number, None, 0))


def uses_a_semaphore() -> None:
    """Use a System V semaphore."""
    checked(LIBC.semget(0x5EED, 1, 0o1600))


def holds_mptcp() -> None:
    """Listen with Multipath TCP, on any port."""
    server = socket.socket(socket.AF_INET, socket.SOCK_STREAM, IPPROTO_MPTCP)
    server.listen()
    kept.append(server)


def handles_page_faults() -> None:
    """Hold a userfaultfd."""
    kept.append(checked(LIBC.syscall(SYS_USERFAULTFD, 1)))


def speaks_to_the_host() -> None:
    """Hold a socket between a virtual machine and its host."""
    kept.append(socket.socket(socket.AF_VSOCK, socket.SOCK_STREAM))


def measures() -> None:
    """Hold a performance counter of its own."""
    attributes = struct.pack("=IIQ", 1, 128, 1) + bytes(24) + struct.pack("=Q", 0x60) + bytes(80)
    kept.append(checked(LIBC.syscall(SYS_PERF_EVENT_OPEN, attributes, 0, -1, -1, 0)))


STUCK = {
    thing.__name__: thing
    for thing in (
        *(holds_a_ring, is_traced, leaves_an_orphan, shares_by_system_v, uses_a_semaphore),
        *(holds_mptcp, handles_page_faults, speaks_to_the_host, measures),
    )
}
