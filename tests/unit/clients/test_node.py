# SPDX-License-Identifier: Apache-2.0
"""What the Node client alone has: a checksum of its own, for a Node whose zlib has none."""

from __future__ import annotations

import random
import subprocess
import zlib

from framework.channel_peers import CLIENTS

PRINT = """
const { plain } = require(process.argv[1]);
const bytes = require('node:fs').readFileSync(0);
console.log(plain(bytes.subarray(100), plain(bytes.subarray(0, 100))));
"""


def test_the_plain_checksum_is_zlibs() -> None:
    """In one go and continued."""
    data = random.Random(1).randbytes(5000)
    command = ["node", "-e", PRINT, str(CLIENTS / "node" / "src" / "crc.js")]
    printed = subprocess.run(command, input=data, capture_output=True, check=True, timeout=60)
    assert int(printed.stdout) == zlib.crc32(data)
