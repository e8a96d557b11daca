# SPDX-License-Identifier: Apache-2.0
"""What the Python client's fast path leaves alone when its attachment has ended."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest
from unit.clients.serving import asked, serving

import aetherless_client
from aetherless_ring.layout import ControlField, Direction, Sleep
from framework.channel_service import Service, request
from framework.processes import wait_until

if TYPE_CHECKING:
    from pathlib import Path

    from framework.channel_service import Attachment


def sleep_in_the_fast_path(service: Service, side: Attachment) -> None:
    """Wait until the client sleeps there, after one more call."""
    service.call(side, b"")
    asleep = side.region.layout.control_offset(Direction.TO_PEER) + ControlField.CONSUMER_ASLEEP
    wait_until(lambda: side.memory[asleep] == Sleep.ON_DOORBELL, "the client sleeps")


def test_the_bells_of_an_attachment_that_ended_are_not_read(tmp_path: Path) -> None:
    """While a handler works: what has their numbers by then is somebody else's."""
    theirs: list[int] = []
    path = tmp_path / "side.sock"

    def handle(data: bytes) -> bytes:
        if data:
            with pytest.raises(aetherless_client.LostCallError):
                aetherless_client.call("other", path=path)
            theirs.extend(os.eventfd(1, os.EFD_NONBLOCK) for _ in range(20))
        return data

    with Service(path) as service, serving(service, handle) as side:
        sleep_in_the_fast_path(service, side)
        side.send(request(1, b"x"))
        asked(side)
        side.end(b"")
        again = service.attached()
        assert service.call(again, b"").status == 0
        again.end()
    assert [os.eventfd_read(number) for number in theirs] == [1] * len(theirs)
    for number in theirs:
        os.close(number)
