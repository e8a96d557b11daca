# SPDX-License-Identifier: Apache-2.0
"""A handler that ends before it listens, saying why."""

from __future__ import annotations

import sys

print("exits: no database at this address", file=sys.stderr, flush=True)
sys.exit(3)
