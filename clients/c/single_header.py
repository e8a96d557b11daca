# SPDX-License-Identifier: Apache-2.0
"""Make one file of aetherless.h and of the ring's headers: ``single_header.py aetherless.h``."""

from __future__ import annotations

import re
import sys
from pathlib import Path

SOURCE = Path(__file__).with_name("aetherless.h")
OWN_INCLUDE = re.compile(r'^#include "([^"]+)"$')


def expanded(header: Path, seen: set[Path]) -> list[str]:
    """Return a header's lines, with the lines of each of our own headers where it comes first."""
    lines = []
    for line in header.read_text().splitlines():
        included = OWN_INCLUDE.match(line)
        if included is None:
            lines.append(line)
            continue
        path = (header.parent / included[1]).resolve()
        if path not in seen:
            seen.add(path)
            lines += expanded(path, seen)
    return lines


if __name__ == "__main__":
    Path(sys.argv[1]).write_text("\n".join(expanded(SOURCE, set())) + "\n")
