# SPDX-License-Identifier: Apache-2.0
"""Work inside another network namespace, and the names that the kernel gives to namespaces."""

from __future__ import annotations

import ctypes
import os
import socket
import struct
import threading
from typing import TYPE_CHECKING, Generic, TypeVar

from aetherless_netplane import errors

if TYPE_CHECKING:
    from collections.abc import Callable

T = TypeVar("T")
CLONE_NEWNET = 0x40000000
SO_NETNS_COOKIE = 71
_libc = ctypes.CDLL(None, use_errno=True)


def cookie() -> int:
    """Return the cookie of this thread's network namespace: unique until the next boot."""
    with socket.socket(socket.AF_INET, socket.SOCK_STREAM) as probe:
        value = probe.getsockopt(socket.SOL_SOCKET, SO_NETNS_COOKIE, 8)
    return int(struct.unpack("=Q", value)[0])


def open_namespace(path: str) -> int:
    """Return a descriptor of a network namespace.

    Raises:
        FailedPrecondition: NETNS_UNREACHABLE.
    """
    try:
        return os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    except OSError as error:
        raise errors.netns_unreachable(path, error.errno or 0) from error


class _Inside(threading.Thread, Generic[T]):
    """Runs one function in a namespace and ends.

    SAFETY: setns changes only the calling thread, and this thread is used for nothing else: no
    other code ever runs in the foreign namespace.
    """

    def __init__(self, descriptor: int, path: str, work: Callable[[], T]) -> None:
        super().__init__(name="inside-netns", daemon=True)
        self._descriptor = descriptor
        self._path = path
        self._work = work
        self.result: T | None = None
        self.error: BaseException | None = None

    def run(self) -> None:
        """Enter the namespace and do the work; keep what comes of it."""
        try:
            self._enter()
            self.result = self._work()
        except BaseException as error:  # noqa: BLE001  # it is raised again in the caller's thread
            self.error = error

    def _enter(self) -> None:
        if _libc.setns(self._descriptor, CLONE_NEWNET):
            raise errors.netns_unreachable(self._path, ctypes.get_errno())


def run_inside(descriptor: int, path: str, work: Callable[[], T]) -> T:
    """Run a function in a network namespace and return its result.

    Args:
        descriptor: the namespace.
        path: what to call it in errors.
        work: the function.

    Raises:
        FailedPrecondition: NETNS_UNREACHABLE.
    """
    thread = _Inside(descriptor, path, work)
    thread.start()
    thread.join()
    if thread.error is not None:
        raise thread.error
    return thread.result  # type: ignore[return-value]  # set when there was no error
