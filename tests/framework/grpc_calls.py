# SPDX-License-Identifier: Apache-2.0
"""A gRPC client of the tests' gRPC program, each call on a connection of its own."""

from __future__ import annotations

import json
from contextlib import ExitStack
from typing import Any

import grpc

METHOD = "/tests.Counter/Remember"
TIMEOUT_S = 30.0
# Without a pool of its own each channel would share one connection with the others.
OPTIONS = (("grpc.use_local_subchannel_pool", 1), ("grpc.enable_http_proxy", 0))


def crowd(port: int, count: int, host: str = "127.0.0.1") -> list[dict[str, Any]]:
    """Make calls at the same time; return what each answered.

    Raises:
        grpc.RpcError: one of them failed.
    """
    target = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
    with ExitStack() as stack:
        channels = [grpc.insecure_channel(target, OPTIONS) for _ in range(count)]
        for channel in channels:
            stack.enter_context(channel)
        methods: list[Any] = [channel.unary_unary(METHOD) for channel in channels]
        calls = [method.future(b"", timeout=TIMEOUT_S) for method in methods]
        return [json.loads(call.result()) for call in calls]
