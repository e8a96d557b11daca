# SPDX-License-Identifier: Apache-2.0
"""Each client says what the shared vectors say, byte for byte: calls and records of pipelines."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_ring.layout import RecordType
from framework.channel_edges import Edge
from framework.channel_peers import CLIENTS, STAGES, running
from framework.channel_service import Service

if TYPE_CHECKING:
    from pathlib import Path

    from framework.channel_service import Attachment

FILE: dict[str, Any] = json.loads((CLIENTS / "vectors" / "vectors.json").read_text())
EXCHANGES = {exchange["about"]: exchange["steps"] for exchange in FILE["exchanges"]}
CALL = 6
ID_BYTES = 8


class Exchange:
    """The service's side of one exchange.

    Args:
        side: the client's attachment.
        stack: closes the edges.
    """

    def __init__(self, side: Attachment, stack: ExitStack) -> None:
        self.side = side
        self.stack = stack
        self.edges: dict[str, Edge] = {}
        self.call_id = b""

    def do(self, step: str) -> None:
        """Do a step, or check it."""
        verb, _, rest = step.partition(" ")
        getattr(self, verb)(*([rest] if verb == "say" else rest.split(" ")))

    def say(self, line: str) -> None:
        """Say something on the side socket."""
        self.side.control.send(line.encode())

    def feed(self, edge: str, place: str) -> None:
        """Hand out a consuming end."""
        self.edges[edge] = self.stack.enter_context(Edge(edge))
        self.edges[edge].feed(self.side, place=int(place))

    def drain(self, edge: str) -> None:
        """Hand out a producing end."""
        self.edges[edge] = self.stack.enter_context(Edge(edge))
        self.edges[edge].drain(self.side)

    def send(self, kind: str, payload: str) -> None:
        """Put a record into the channel."""
        self.side.send(bytes.fromhex(payload), int(kind))

    def expect(self, kind: str, payload: str) -> None:
        """Take a record out of the channel."""
        assert self.side.receive() == (int(kind), bytes.fromhex(payload))

    def put(self, edge: str, payload: str) -> None:
        """Put a record into an edge."""
        self.edges[edge].producer.publish(bytes.fromhex(payload), RecordType.REQUEST)

    def take(self, edge: str, payload: str) -> None:
        """Take a record out of an edge."""
        assert self.edges[edge].take_raw() == bytes.fromhex(payload)

    def called(self, payload: str) -> None:
        """Take a call out of the channel."""
        kind, call = self.side.receive()
        self.call_id = call[:ID_BYTES]
        assert (kind, call[ID_BYTES:]) == (CALL, bytes.fromhex(payload))

    def reply(self, payload: str) -> None:
        """Answer the call."""
        self.side.send(self.call_id + bytes.fromhex(payload), RecordType.RESPONSE)


@pytest.mark.parametrize("about", EXCHANGES)
@pytest.mark.parametrize("language", STAGES)
def test_exchange(language: str, about: str, tmp_path: Path) -> None:
    """Every step is as it must be."""
    path = tmp_path / "side.sock"
    with (
        Service(path) as service,
        running(language, "serve", AETHER_CHANNEL=str(path)),
        ExitStack() as stack,
    ):
        made = Exchange(service.attached(), stack)
        for step in EXCHANGES[about]:
            made.do(step)
