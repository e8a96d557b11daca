# SPDX-License-Identifier: Apache-2.0
"""A peer in a process of its own: one command per line in, one JSON object per line out."""

from __future__ import annotations

import json
import os
import select
import sys
from pathlib import Path

from aetherless_ipc.attachment import Attachment, AttachRefusedError
from aetherless_ring.layout import Direction

WAIT_S = 20.0


def run(command: str, argument: str, held: list[Attachment]) -> object:
    """Do one command."""
    if command == "attach":
        held.append(Attachment(Path(argument), WAIT_S))
        region = held[-1].region
        return {"generation": region.generation, "ring_bytes": region.layout.ring_bytes}
    attachment = held[-1]
    if command == "detach":
        held.pop().__exit__()
        return {}
    region = attachment.region
    if command == "write":
        at = region.layout.data_offset(Direction.FROM_PEER)
        region.memory[at : at + len(argument)] = argument.encode()
        os.eventfd_write(attachment.wake_service, 1)
        return {}
    if command == "shrink":
        try:
            os.ftruncate(attachment._descriptors[0], 4096)
        except OSError as error:
            return {"errno": error.errno}
        return {}
    if command == "talk":
        attachment.control.send(argument.encode())
    woken, _, _ = select.select([attachment.wake_peer], [], [], WAIT_S)
    said = []
    while text := attachment.control.recv(512):
        said.append(text.decode())
    return {"closed": region.closed, "woken": bool(woken), "said": said}


def main() -> None:
    """Do the commands of standard input."""
    held: list[Attachment] = []
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
