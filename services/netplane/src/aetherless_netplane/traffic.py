# SPDX-License-Identifier: Apache-2.0
"""Reads the records of answered wakes from the ring buffer and hands them to the watchers."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_common.watch import Broadcaster
from aetherless_netplane.layout import FirstAnswerData
from aetherless_netplane.libbpf import RingReader

if TYPE_CHECKING:
    from collections.abc import Callable

POLL_MS = 200


@dataclass(frozen=True, slots=True)
class Answer:
    """The first answer of a woken sandbox. Times are in nanoseconds."""

    endpoint: str
    function_id: str
    first_packet_unix_ns: int
    first_byte_ns: int


class Traffic:
    """The reading thread.

    Args:
        descriptor: the ring buffer map.
        names: gives the endpoint's name and the function's id for a slot and a port.
    """

    def __init__(self, descriptor: int, names: Callable[[int, int], tuple[str, str]]) -> None:
        self.answers: Broadcaster[Answer] = Broadcaster()
        self._names = names
        self._reader = RingReader(descriptor, self._publish)
        self._told = threading.Event()
        self._thread = threading.Thread(target=self._run, name="traffic", daemon=True)

    def start(self) -> None:
        """Begin; records that came while no service lived are handed out first."""
        self._thread.start()

    def stop(self) -> None:
        """End the watches and the thread."""
        self.answers.close()
        self._told.set()
        if self._thread.is_alive():
            self._thread.join()
        self._reader.close()

    def _run(self) -> None:
        while not self._told.is_set():
            self._reader.poll(POLL_MS)

    def _publish(self, record: bytes) -> None:
        data = FirstAnswerData.from_buffer_copy(record)
        endpoint, function_id = self._names(data.slot, data.route_port)
        self.answers.publish(
            Answer(
                endpoint,
                function_id,
                unix_ns(data.first_syn_ns),
                data.first_answer_ns - data.first_syn_ns,
            )
        )


def unix_ns(monotonic_ns: int) -> int:
    """Return the wall-clock time of a recent moment of CLOCK_MONOTONIC."""
    return time.time_ns() - (time.monotonic_ns() - monotonic_ns)
