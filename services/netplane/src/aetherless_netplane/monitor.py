# SPDX-License-Identifier: Apache-2.0
"""Follows the host: its addresses, links that go away, its resolver. One thread."""

from __future__ import annotations

import errno
import os
import select
import socket
import struct
import threading
from typing import TYPE_CHECKING

import structlog

from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

log = structlog.get_logger()
RTMGRP_LINK = 0x1
RTMGRP_IPV4_IFADDR = 0x10
RTMGRP_IPV6_IFADDR = 0x100
RTM_DELLINK = 17
RTM_NEWADDR = 20
RTM_DELADDR = 21
HEADER = struct.Struct("=IHHII")  # struct nlmsghdr
RECEIVE_BYTES = 1 << 16
TICK_S = 2.0


class Monitor:
    """Calls back, in its own thread, when something of the host changed.

    Args:
        on_addresses: the host's addresses changed.
        on_links: links went away.
        on_tick: two seconds passed.
    """

    def __init__(
        self,
        on_addresses: Callable[[], None],
        on_links: Callable[[], None],
        on_tick: Callable[[], None],
    ) -> None:
        self._on_addresses = on_addresses
        self._on_links = on_links
        self._on_tick = on_tick
        self._socket = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, socket.NETLINK_ROUTE)
        self._socket.bind((0, RTMGRP_LINK | RTMGRP_IPV4_IFADDR | RTMGRP_IPV6_IFADDR))
        self._told = os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK)
        self._thread = threading.Thread(target=self._run, name="monitor", daemon=True)

    def start(self) -> None:
        """Begin: what changes from the construction on is seen."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        os.eventfd_write(self._told, 1)
        if self._thread.is_alive():
            self._thread.join()
        self._socket.close()
        os.close(self._told)

    def _run(self) -> None:
        while True:
            readable, _, _ = select.select([self._socket.fileno(), self._told], [], [], TICK_S)
            if self._told in readable:
                return
            try:
                self._call_back(set(self._kinds()) if readable else None)
            except (AetherlessError, OSError) as error:
                log.exception("following the host failed", error=str(error))

    def _call_back(self, kinds: set[int] | None) -> None:
        """Call what the kinds of messages ask for; None: time passed."""
        if kinds is None:
            self._on_tick()
            return
        if kinds & {RTM_NEWADDR, RTM_DELADDR}:
            self._on_addresses()
        if RTM_DELLINK in kinds:
            self._on_links()

    def _kinds(self) -> Iterator[int]:
        """Give the kinds of the messages of one datagram; all kinds when some were lost."""
        try:
            data = self._socket.recv(RECEIVE_BYTES)
        except OSError as error:
            if error.errno != errno.ENOBUFS:
                raise
            yield from (RTM_NEWADDR, RTM_DELLINK)
            return
        while len(data) >= HEADER.size:
            length, kind, *_ = HEADER.unpack_from(data)
            yield kind
            data = data[max(HEADER.size, (length + 3) & ~3) :]
