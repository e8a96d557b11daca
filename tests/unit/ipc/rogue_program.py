# SPDX-License-Identifier: Apache-2.0
"""A peer that answers its first request in the wrong way that it is told, later ones rightly."""

from __future__ import annotations

import mmap
import os
import select
import struct
import sys
import threading

from aetherless_client import Channel, PeerGoneError, Request, Status, attach
from aetherless_client.calls import response
from aetherless_ring import RingError
from aetherless_ring.layout import ControlField, Direction, HeaderField, RecordType


def wrong_records(way: str, request: Request) -> list[tuple[bytes, int]]:
    """Return records that are whole and say what they may not."""
    good = response(request.id, Status.RESULT, b"good")
    bad = response(request.id, Status.RESULT, b"bad")
    strange = response(request.id + 1, Status.RESULT, b"bad")
    kinds = (RecordType.USER, RecordType.REQUEST, RecordType.PONG, 77, 0xFFFFFFFF)
    ways: dict[str, list[tuple[bytes, int]]] = {
        "stranger": [(strange, RecordType.RESPONSE), (good, RecordType.RESPONSE)],
        "short": [(good[:11], RecordType.RESPONSE), (good, RecordType.RESPONSE)],
        "other-types": [*((bad, kind) for kind in kinds), (good, RecordType.RESPONSE)],
        "twice": [(good, RecordType.RESPONSE), (bad, RecordType.RESPONSE)],
        "status": [(struct.pack("<QII", request.id, 99, 0) + b"bad", RecordType.RESPONSE)],
        "short-call": [
            (struct.pack("<QQIHH", 1, 0, 1, 500, 500), 6),
            (good, RecordType.RESPONSE),
        ],
    }
    return ways.get(way, [])


def damage(way: str, channel: Channel, request: Request) -> None:
    """Write what no ring has, and ring the bell."""
    layout = channel.layout
    ours, theirs = Direction.FROM_PEER, Direction.TO_PEER
    with mmap.mmap(channel._region.descriptors[0], layout.region_bytes) as region:
        if way == "checksum":
            good = response(request.id, Status.RESULT, b"good")
            wait = layout.data_offset(ours)
            region[wait : wait + 64] = bytes(64)
            struct.pack_into("=IIII", region, wait, 0xBAD, len(good), RecordType.RESPONSE, 0)
        kind, at, value = {
            "index": ("=Q", layout.control_offset(ours) + ControlField.PRODUCED, 1 << 40),
            "checksum": ("=Q", layout.control_offset(ours) + ControlField.PRODUCED, 64),
            "consumed": ("=Q", layout.control_offset(theirs) + ControlField.CONSUMED, 1 << 40),
            "closed": ("=I", int(HeaderField.CLOSED), 1),
        }[way]
        struct.pack_into(kind, region, at, value)
    os.eventfd_write(channel._region.descriptors[2], 1)
    assert channel._control
    select.select([channel._control], [], [])  # to go on reading would repair it, or see it


def misbehave(way: str, channel: Channel, request: Request) -> None:
    """Do what is told."""
    records = wrong_records(way, request)
    for payload, kind in records:
        channel.publish(payload, kind)
    if not records:
        damage(way, channel, request)


def main() -> None:
    """Misbehave once, then serve."""
    way = sys.argv[1]
    path = sys.stdin.readline().strip()
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    done = False
    while True:
        with attach(path) as channel:
            try:
                while True:
                    kind, payload = channel.receive()
                    request = Request.parse(payload)
                    if kind != RecordType.REQUEST or request is None:
                        continue
                    if done:
                        answer = response(request.id, Status.RESULT, b"again")
                        channel.publish(answer, RecordType.RESPONSE)
                    else:
                        done = True
                        misbehave(way, channel, request)
            except (PeerGoneError, RingError):
                continue


if __name__ == "__main__":
    main()
