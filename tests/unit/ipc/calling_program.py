# SPDX-License-Identifier: Apache-2.0
"""A function that calls others when told to: one JSON list of calls per line in, of ends out.

It writes the records itself: what it is tested with is the service's side.
"""

from __future__ import annotations

import json
import struct
import sys
import time

from aetherless_client import Channel, attach
from aetherless_ring.layout import RecordType

CALL = 6


def record(number: int, method: str, data: str, seconds: float) -> bytes:
    """Return the payload of a call's record."""
    deadline, name = time.time_ns() + int(seconds * 1e9), method.encode()
    return struct.pack("<QQIHH", number, deadline, 1, 0, len(name)) + name + data.encode()


def make(channel: Channel, wanted: list[tuple[str, str, float]]) -> list[tuple[int, str]]:
    """Make calls at once; return how they ended, in their order."""
    ends: dict[int, tuple[int, str]] = {}

    def hear() -> None:
        kind, payload = channel.receive(60)
        assert kind == RecordType.RESPONSE
        number, status, zero = struct.unpack_from("<QII", payload)
        assert zero == 0
        assert number not in ends
        ends[number] = (status, payload[16:].decode())

    for number, (method, data, seconds) in enumerate(wanted):
        while number - len(ends) >= 100:
            hear()
        channel.publish(record(number, method, data, seconds), CALL, 60)
    while len(ends) < len(wanted):
        hear()
    return [ends[number] for number in range(len(wanted))]


def main() -> None:
    """Do what standard input asks for."""
    channel = attach(sys.stdin.readline().strip())
    for line in sys.stdin:
        sys.stdout.write(json.dumps(make(channel, json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
