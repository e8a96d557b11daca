# SPDX-License-Identifier: Apache-2.0
"""The Python client serving in a thread of the test's own process, and what its handlers do."""

from __future__ import annotations

import threading
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, Any

import pytest

import aetherless_client
from aetherless_ring.layout import RecordType
from framework.channel_edges import Carried
from framework.channel_service import LIMIT_S, Service

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from framework.channel_service import Attachment

CALL = 6


@contextmanager
def serving(service: Service, handler: Any, **options: Any) -> Iterator[Attachment]:
    """Serve in a thread of this process; return the service's side."""

    def run() -> None:
        with pytest.raises(aetherless_client.AttachRefusedError):
            aetherless_client.serve(handler, path=service.path, **options)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    side = service.attached()
    yield side
    with suppress(OSError):  # a test has let go of it
        side.end()
    with service.connection() as connection:
        connection.send(b"error reason=PEER_NOT_ALLOWED")
    thread.join(LIMIT_S)
    assert not thread.is_alive()


def asked(side: Attachment) -> Carried:
    """Take a call that the function makes."""
    kind, payload = side.receive()
    assert kind == CALL
    return Carried.parse(payload)


def reply(side: Attachment, call: Carried, data: bytes) -> None:
    """Answer a call that the function made."""
    head = call.run.to_bytes(8, "little") + bytes(8)
    side.send(head + data, RecordType.RESPONSE)


def in_thread(act: Callable[[], bytes]) -> bytes:
    """Do something in another thread; return what that returned."""
    results: list[bytes] = []
    thread = threading.Thread(target=lambda: results.append(act()))
    thread.start()
    thread.join(LIMIT_S)
    return results[0]
