# SPDX-License-Identifier: Apache-2.0
"""iceoryx2's publish-subscribe from Python, both sides polling: it has no call that waits."""

from __future__ import annotations

import ctypes
import os
import time
from typing import Any

import iceoryx2 as iox2

LARGEST = 4096


class Message(ctypes.Structure):
    """A payload of a fixed size; iceoryx2 passes structures, not byte strings, from Python."""

    _fields_ = (("length", ctypes.c_uint32), ("data", ctypes.c_uint8 * LARGEST))


class Iceoryx:
    """Two services, one for each direction."""

    def __init__(self) -> None:
        self.name = f"aether-bench-{os.getpid()}"
        self.ends: tuple[Any, Any] | None = None

    def open(self, out: str, back: str) -> tuple[Any, Any]:
        """Return a publisher and a subscriber."""
        node = iox2.NodeBuilder.new().create(iox2.ServiceType.Ipc)

        def service(direction: str) -> Any:
            name = iox2.ServiceName.new(f"{self.name}-{direction}")
            return node.service_builder(name).publish_subscribe(Message).open_or_create()

        self.node = node
        return (
            service(out).publisher_builder().create(),
            service(back).subscriber_builder().create(),
        )

    def send(self, publisher: Any, payload: bytes) -> None:
        """Put a payload into a loaned sample and send it."""
        sample = publisher.loan_uninit()
        contents = sample.payload().contents
        contents.length = len(payload)
        ctypes.memmove(contents.data, payload, len(payload))
        sample.assume_init().send()

    def take(self, subscriber: Any) -> bytes:
        """Poll until a sample is there; return a copy of its payload."""
        while (sample := subscriber.receive()) is None:
            pass
        contents = sample.payload().contents
        payload = ctypes.string_at(contents.data, contents.length)
        sample.delete()
        return payload

    def ask(self, payload: bytes) -> bytes:
        """Send and return what comes back."""
        if self.ends is None:
            self.ends = self.open("there", "back")
            time.sleep(0.5)  # the other side's subscriber must exist; there is no handshake
        self.send(self.ends[0], payload)
        return self.take(self.ends[1])

    def serve(self, count: int) -> None:
        """Answer."""
        publisher, subscriber = self.open("back", "there")
        for _ in range(count):
            self.send(publisher, self.take(subscriber))
