# SPDX-License-Identifier: Apache-2.0
"""A handler that runs for ever and never listens."""

from __future__ import annotations

import signal

print("silent: thinking", flush=True)
while True:
    signal.pause()
