# SPDX-License-Identifier: Apache-2.0
"""A gRPC server that remembers something in memory; the venv around this file has grpcio."""

from __future__ import annotations

import json
import os
import secrets
from concurrent.futures import ThreadPoolExecutor
from itertools import count
from typing import Any

import grpc

TOKEN = secrets.token_hex(8)
COUNTER = count(1)


def remember(_: bytes, __: Any) -> bytes:
    """Count the call and answer what the process remembers, as JSON."""
    memory = {
        "token": TOKEN,
        "count": next(COUNTER),
        "pid": os.getpid(),
        "edition": os.environ.get("EDITION", "1"),
    }
    return json.dumps(memory).encode()


if __name__ == "__main__":
    server = grpc.server(ThreadPoolExecutor(8))
    method: Any = grpc.unary_unary_rpc_method_handler(remember)
    handler = grpc.method_handlers_generic_handler("tests.Counter", {"Remember": method})
    server.add_generic_rpc_handlers((handler,))
    server.add_insecure_port(f"0.0.0.0:{os.environ['PORT']}")
    server.start()
    server.wait_for_termination()
