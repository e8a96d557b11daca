# SPDX-License-Identifier: Apache-2.0
"""A handler that listens, accepts, and never answers."""

from __future__ import annotations

import os
import socket

kept = []
server = socket.create_server(("", int(os.environ["PORT"])))
print("mute: listening", flush=True)
while True:
    kept.append(server.accept())
