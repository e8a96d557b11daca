# SPDX-License-Identifier: Apache-2.0
"""Every way to compute the checksum that this processor has gives zlib's."""

from __future__ import annotations

import random
import struct
import subprocess
import zlib
from pathlib import Path

import pytest
from unit.ring.rings import RING, pair

from aetherless_ring import _native

WORDS = (0xFFFFFFFF, 0, 0x80000001)
ROOT = Path(__file__).resolve().parents[3]
CHECK = ROOT / "services" / "ipc" / "ring" / "native" / "check" / "checksum.c"


def of_zlib(words: tuple[int, int, int], payload: bytes) -> int:
    """Return zlib's CRC-32 over the words and the payload."""
    return zlib.crc32(struct.pack("<III", *words) + payload)


@pytest.mark.parametrize("way", _native.CHECKSUM_WAYS)
def test_a_way_gives_what_zlib_gives(way: str) -> None:
    """For every length to past the widest loop, at every alignment, and for large ones."""
    chance = random.Random(way)
    source = chance.randbytes(70_000)
    for length in (*range(1100), 4096, 65_535):
        start = chance.randrange(64)
        payload = source[start : start + length]
        words = (length, chance.getrandbits(32), chance.getrandbits(32))
        assert _native.checksum(words, payload, way) == of_zlib(words, payload), length
    assert _native.checksum(WORDS, b"", way) == of_zlib(WORDS, b"")


@pytest.mark.parametrize("way", _native.CHECKSUM_WAYS)
def test_a_way_copies_what_it_checks(way: str) -> None:
    """Through a ring whose producer uses it, every length comes out whole."""
    ring = pair("native", "reference", checksum=way)
    for length in range(1, 800):
        payload = random.Random(length).randbytes(length)
        ring.producer.publish(payload)
        assert ring.consumer.receive() == (0, payload)
    assert ring.producer.counts()["bytes"] < 10 * RING


def test_plain_c_is_always_there() -> None:
    """And it comes last: the others are faster."""
    assert _native.CHECKSUM_WAYS[-1] == "plain"
    with pytest.raises(ValueError, match="no way"):
        _native.checksum(WORDS, b"", "by hand")


@pytest.fixture(scope="module")
def for_arm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return the program that prints every checksum, compiled for ARM."""
    program = tmp_path_factory.mktemp("arm") / "checksum"
    command = ["aarch64-linux-gnu-gcc", "-O3", "-static", "-Wall", "-Wextra", "-Werror"]
    subprocess.run([*command, "-o", program, CHECK], check=True, timeout=60)
    return program


@pytest.mark.parametrize("length", [1, 7, 8, 9, 64, 1003, 65_536])
def test_arm_gives_what_zlib_gives(for_arm: Path, length: int) -> None:
    """Its CRC instructions and plain C, in an emulated processor."""
    payload = random.Random(length).randbytes(length)
    words = (length, 5, 9)
    done = subprocess.run(
        ["qemu-aarch64-static", for_arm, *map(str, words)],
        input=payload,
        capture_output=True,
        check=True,
        timeout=60,
    )
    found = dict(line.split() for line in done.stdout.decode().splitlines())
    assert found.keys() == {"armcrc", "plain"}
    assert {int(crc) for crc in found.values()} == {of_zlib(words, payload)}
