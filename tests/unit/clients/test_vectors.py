# SPDX-License-Identifier: Apache-2.0
"""Each client reads and writes the shared vectors byte for byte."""

from __future__ import annotations

import hashlib
import json
import mmap
import os
import subprocess
import sys
import zlib
from typing import Any

import pytest

from aetherless_ring.layout import Layout
from framework.channel_peers import CLIENTS, LANGUAGES, running

FOLDER = CLIENTS / "vectors"
FILE: dict[str, Any] = json.loads((FOLDER / "vectors.json").read_text())
VECTORS = {vector["about"]: vector for vector in FILE["vectors"]}
LAYOUT = Layout(FILE["ring_bytes"])


def test_they_are_the_references() -> None:
    """The file is what generate.py makes."""
    command = [sys.executable, str(FOLDER / "generate.py"), "--check"]
    subprocess.run(command, check=True, timeout=60)


@pytest.mark.parametrize("about", VECTORS)
@pytest.mark.parametrize("language", LANGUAGES)
def test_vector(language: str, about: str) -> None:
    """Every step answers what it must, and the region is the same afterwards."""
    region = os.memfd_create("aether-test-vector")
    try:
        os.ftruncate(region, LAYOUT.region_bytes)
        with (
            mmap.mmap(region, LAYOUT.region_bytes) as memory,
            running(language, "script", region, LAYOUT.ring_bytes, keep=[region]) as peer,
        ):
            answers = [_done(peer, memory, step) for step in VECTORS[about]["steps"]]
            assert answers == VECTORS[about]["answers"]
            for offset, line in VECTORS[about]["lines"].items():
                assert memory[int(offset) :][: len(line) // 2].hex() == line, offset
            assert hashlib.sha256(memory).hexdigest() == VECTORS[about]["region_sha256"]
    finally:
        os.close(region)


def _done(peer: subprocess.Popen[str], memory: mmap.mmap, step: str) -> str:
    """Do one step; return its answer, a payload by its length and CRC-32."""
    verb, *words = step.split()
    if verb == "poke":
        written = bytes.fromhex(words[1])
        memory[int(words[0]) : int(words[0]) + len(written)] = written
        return "ok"
    assert peer.stdin
    assert peer.stdout
    peer.stdin.write(step + "\n")
    peer.stdin.flush()
    answer = peer.stdout.readline().strip()
    if not answer.startswith("record "):
        return answer
    _, kind, text = answer.split()
    payload = bytes.fromhex(text)
    return f"record {kind} {len(payload)} {zlib.crc32(payload):08x}"
