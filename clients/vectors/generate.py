# SPDX-License-Identifier: Apache-2.0
"""Write vectors.json: what both ends of a ring answer, and the region that they leave.

Run with the reference ring importable (``.venv/bin/python clients/vectors/generate.py``);
``--check`` compares instead.
"""

from __future__ import annotations

import hashlib
import json
import mmap
import sys
import zlib
from pathlib import Path
from typing import Any

from exchanges import calls, pipelines

from aetherless_ring.errors import (
    PayloadTooLargeError,
    RingCorruptError,
    RingEmptyError,
    RingError,
    RingFullError,
)
from aetherless_ring.layout import SKIP, SMALLEST_RING, Direction, Layout
from aetherless_ring.reference import Consumer, Producer

TARGET = Path(__file__).with_name("vectors.json")
LAYOUT = Layout(SMALLEST_RING)
CONTROL = LAYOUT.control_offset(Direction.TO_PEER)
DATA = LAYOUT.data_offset(Direction.TO_PEER)
LARGEST = LAYOUT.largest_payload
LINE = 64
NAMES = {RingFullError: "full", RingEmptyError: "empty", PayloadTooLargeError: "too_large"}
Step = list[Any]


def pattern(length: int, seed: int) -> bytes:
    """Return a payload: byte ``i`` is ``seed * 31 + i * 7 + (i >> 8)``, modulo 256."""
    return bytes(seed * 31 + place * 7 + (place >> 8) & 255 for place in range(length))


class Scene:
    """A fresh region with both ends of its ring to the peer; notes where records' heads lie."""

    def __init__(self) -> None:
        self.memory = mmap.mmap(-1, LAYOUT.region_bytes)
        self.producer = Producer(self.memory, Direction.TO_PEER, SMALLEST_RING)
        self.consumer = Consumer(self.memory, Direction.TO_PEER, SMALLEST_RING)
        self.heads: set[int] = set()

    def answer(self, step: Step) -> str:
        """Do one step; return what it answers."""
        try:
            return str(getattr(self, step[0])(*step[1:]))
        except RingCorruptError as error:
            return f"corrupt {error.fault} {error.expected} {error.actual}"
        except RingError as error:
            return NAMES[type(error)]

    def put(self, kind: int, length: int, seed: int) -> str:
        """Publish a record."""
        before = self.producer._own  # noqa: SLF001  # where the record, or the skip, will lie
        self.producer.publish(pattern(length, seed), kind)
        self.heads |= {before % SMALLEST_RING}
        if self.producer._own - before != -(-(16 + length) // LINE) * LINE:  # noqa: SLF001  # as above
            self.heads |= {0}
        return "ok"

    def take(self) -> str:
        """Receive a record."""
        kind, payload = self.consumer.receive()
        return f"record {kind} {len(payload)} {zlib.crc32(payload):08x}"

    def poke(self, offset: int, written: str) -> str:
        """Write bytes, in hexadecimal, into the region, as a peer may that is not trusted."""
        changed = bytes.fromhex(written)
        self.memory[offset : offset + len(changed)] = changed
        return "ok"

    def lines(self) -> dict[str, str]:
        """Return the lines of 64 bytes that the layout speaks of, in hexadecimal, by offset."""
        places = [CONTROL, CONTROL + 128, *(DATA + head for head in sorted(self.heads))]
        return {str(place): self.memory[place : place + LINE].hex() for place in places}


def vector(about: str, *steps: Step) -> dict[str, Any]:
    """Return one vector: its steps, their answers, and the region afterwards."""
    scene = Scene()
    answers = [scene.answer(step) for step in steps]
    return {
        "about": about,
        "steps": [" ".join(map(str, step)) for step in steps],
        "answers": answers,
        "lines": scene.lines(),
        "region_sha256": hashlib.sha256(scene.memory).hexdigest(),
    }


def put(length: int, seed: int = 1, kind: int = 0) -> Step:
    """Return the step that publishes a record."""
    return ["put", kind, length, seed]


def damaged(about: str, offset: int, written: bytes) -> dict[str, Any]:
    """Return a vector of two records, of 100 and 200 bytes, that were damaged before the take."""
    poke = ["poke", offset, written.hex()]
    return vector(about, put(100), put(200), poke, ["take"], ["take"], ["take"])


def word(number: int, width: int = 4) -> bytes:
    """Return an integer as it lies in a region of a little-endian host."""
    return number.to_bytes(width, "little")


TAKE: Step = ["take"]
QUARTER = [put(LARGEST - 16, seed) for seed in range(4)]
BELOW = [put(12000, seed) for seed in range(5)]
BEFORE_SKIP = [step for each in BELOW for step in (each, TAKE)]
SKIP_AT = DATA + 5 * 12032


def vectors() -> list[dict[str, Any]]:
    """Return all vectors."""
    lengths = (1, 15, 16, 47, 48, 49, 112, 113, 255, 1000, LARGEST - 1, LARGEST)
    kinds = (0, 1, 2, 3, 4, 5, 77, SKIP)
    laps = [step for n in range(200) for step in (put(1 + n * 397 % 3000, n, n), TAKE)]
    return [
        vector("nothing in it", TAKE),
        vector("lengths", *(s for n in lengths for s in (put(n, n), TAKE)), TAKE),
        vector("types", *(put(8, kind & 255, kind) for kind in kinds), *[TAKE] * len(kinds)),
        vector("lengths that are refused", put(0), put(LARGEST + 1), put(SMALLEST_RING), TAKE),
        vector("full to the last byte, no skip", *QUARTER, put(1), TAKE, put(1, 9), *[TAKE] * 5),
        vector("a skip", *BEFORE_SKIP, put(LARGEST, 9), TAKE, TAKE),
        vector("no room for skip and record", *BELOW, TAKE, put(LARGEST), TAKE, put(LARGEST)),
        vector("many laps", *laps, TAKE),
        damaged("a checksum", DATA, word(1)),
        damaged("a byte of the payload", DATA + 16, b"\xff"),
        damaged("the last byte of the payload", DATA + 16 + 99, b"\xff"),
        damaged("a type", DATA + 8, word(9)),
        damaged("a length of nothing", DATA + 4, word(0)),
        damaged("a length beyond the largest", DATA + 4, word(LARGEST + 1)),
        damaged("a length beyond what was produced", DATA + 4, word(5000)),
        damaged("a sequence", DATA + 12, word(1)),
        damaged("the second record", DATA + 128 + 16, b"\xff"),
        damaged("a skip that was never written", DATA + 4, word(SKIP)),
        damaged("an index between records", CONTROL, word(65, 8)),
        damaged("an index too far ahead", CONTROL, word(SMALLEST_RING + 64, 8)),
        damaged("an index far behind", CONTROL, word((1 << 64) - 64, 8)),
        vector(
            "an index that goes back",
            put(1),
            put(1),
            TAKE,
            ["poke", CONTROL, "00" * 8],
            TAKE,
            TAKE,
            TAKE,
        ),
        vector(
            "a consumer that is ahead",
            *BELOW,
            ["poke", CONTROL + 128, word(1 << 17, 8).hex()],
            put(9000),
            put(9000),
        ),
        vector(
            "a skip's checksum", *BEFORE_SKIP, put(LARGEST), ["poke", SKIP_AT, word(1).hex()], TAKE
        ),
        vector(
            "a skip's type", *BEFORE_SKIP, put(LARGEST), ["poke", SKIP_AT + 8, word(1).hex()], TAKE
        ),
    ]


def main() -> None:
    """Write the file, or compare it."""
    head = {"ring_bytes": SMALLEST_RING, "byte_order": "little"}
    text = (
        json.dumps({**head, "vectors": vectors(), "exchanges": calls() + pipelines()}, indent=1)
        + "\n"
    )
    if "--check" not in sys.argv:
        TARGET.write_text(text)
    elif TARGET.read_text() != text:
        sys.exit(f"{TARGET} is not what generate.py makes")


if __name__ == "__main__":
    main()
