# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own: one command per line in, one JSON object per line out."""

from __future__ import annotations

import json
import mmap
import os
import select
import sys

from aetherless_client import AttachRefusedError, Channel, attach
from aetherless_ring.layout import HeaderField, RecordType

WAIT_S = 20.0


def run(command: str, argument: str, held: list[Channel]) -> object:
    """Do one command."""
    if command == "attach":
        held.append(attach(argument, timeout=0))
        return {"generation": held[-1].generation, "ring_bytes": held[-1].layout.ring_bytes}
    channel = held[-1]
    if command == "detach":
        held.pop().close()
        return {}
    if command == "write":
        channel.publish(argument.encode(), RecordType.USER)
        return {}
    if command == "shrink":
        try:
            os.ftruncate(channel._region.descriptors[0], 4096)
        except OSError as error:
            return {"errno": error.errno}
        return {}
    if command == "talk":
        assert channel._control
        channel._control.send(argument.encode())
    return heard(channel)


def heard(channel: Channel) -> object:
    """Wait for the end of the control socket; tell what came before it, and of the region."""
    assert channel._control
    woken, _, _ = select.select([channel._region.wake], [], [], WAIT_S)
    said = []
    while select.select([channel._control], [], [], WAIT_S)[0]:
        text = channel._control.recv(512)
        if not text:
            break
        said.append(text.decode())
    with mmap.mmap(channel._region.descriptors[0], channel.layout.region_bytes) as region:
        closed = bool(region[HeaderField.CLOSED])
    return {"closed": closed, "woken": bool(woken), "said": said}


def main() -> None:
    """Do the commands of standard input."""
    held: list[Channel] = []
    for line in sys.stdin:
        command, _, argument = line.strip().partition(" ")
        try:
            answer = run(command, argument, held)
        except AttachRefusedError as error:
            answer = {"refused": error.reason}
        except OSError as error:
            answer = {"errno": error.errno}
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()
