# SPDX-License-Identifier: Apache-2.0
"""The program as a shell sees it: its name, its global options, its own exit statuses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

PROGRAM = "aetherctl"
# Where a shell that wants a completion says so; completion.py answers.
COMPLETION = "_AETHERCTL_COMPLETE"
# The exit status of wrong use, beside those of the classes of errors and entry.py's.
USAGE = 2


@dataclass
class Options:
    """The global options; a command's own -o and -c win."""

    config: Path = Path("aetherless.yaml")
    output: str = "table"
    verbose: bool = False
