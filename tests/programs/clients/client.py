# SPDX-License-Identifier: Apache-2.0
"""Ask HOST PORT over HTTP; print the status and the address that the socket says it talks to."""

from __future__ import annotations

import http.client
import sys

connection = http.client.HTTPConnection(sys.argv[1], int(sys.argv[2]), timeout=10)
connection.connect()
peer = connection.sock.getpeername()[0]
connection.request("GET", "/")
print(connection.getresponse().status, peer)
