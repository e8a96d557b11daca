# SPDX-License-Identifier: Apache-2.0
"""Peers of the measurements, each a process: ``python peer.py WAY ARGUMENT``."""

from __future__ import annotations

import json
import os
import struct
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import grpc

from aetherless_client import attach, serve

if TYPE_CHECKING:
    from collections.abc import Callable

HOP = struct.Struct("<q")
CIRCLE_ENDS = b"end"


def end_with_parent() -> None:
    """End when whoever started this has gone: our standard input ends then."""
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()


def handler(spin: str) -> None:
    """Serve a function that returns what it is given, also as any stage of pipelines."""
    path = sys.stdin.readline().strip()
    end_with_parent()
    serve(lambda data: data, path=path, spin=float(spin))


def stage(spin: str) -> None:
    """Serve a stage that tells the time to the next one, which tells how long that took, in ns."""
    path = sys.stdin.readline().strip()
    end_with_parent()

    def handle(data: bytes) -> bytes:
        now = time.monotonic_ns()
        if len(data) < HOP.size:
            return HOP.pack(time.monotonic_ns())
        return HOP.pack(now - HOP.unpack(data)[0])

    serve(handle, path=path, spin=float(spin))


def circle(argument: str) -> None:
    """Serve a stage of a circle: tell the time to the next one; print how long the hops took."""
    path = sys.stdin.readline().strip()
    end_with_parent()
    spin, count = argument.split("/")
    took: list[int] = []

    def handle(data: bytes) -> bytes:
        now = time.monotonic_ns()
        if data and data != CIRCLE_ENDS:
            took.append(now - HOP.unpack(data)[0])
        if data != CIRCLE_ENDS and len(took) < int(count):
            return HOP.pack(time.monotonic_ns())
        print(json.dumps(took), flush=True)
        return CIRCLE_ENDS

    serve(handle, path=path, spin=float(spin))


def attacher(argument: str) -> None:
    """Attach and let go, again and again; print how long each took, in ms."""
    path = sys.stdin.readline().strip()
    count, pause = argument.split("/")
    took = []
    for _ in range(int(count)):
        began = time.perf_counter()
        channel = attach(path, timeout=10)
        took.append((time.perf_counter() - began) * 1000)
        channel.close()
        time.sleep(float(pause))
    print(json.dumps(took), flush=True)


def server(address: str) -> None:
    """Serve a gRPC call that takes and returns nothing, with grpcio and no more."""
    serve_bare(address, lambda request, _: request)


def relay(address: str) -> None:
    """Serve the same call, in which another process is woken and wakes us: what each Invoke has."""
    there, back = os.eventfd(0), os.eventfd(0)
    if os.fork() == 0:  # before any thread is started
        end_with_parent()
        while True:
            os.eventfd_write(back, os.eventfd_read(there))

    def handle(request: bytes, _: object) -> bytes:
        os.eventfd_write(there, 1)
        os.eventfd_read(back)
        return request

    serve_bare(address, handle)


def serve_bare(address: str, handle: Callable[[bytes, Any], bytes]) -> None:
    """Serve a call with grpcio's server, as it comes."""
    nothing: Any = grpc.unary_unary_rpc_method_handler(handle)
    served = grpc.server(ThreadPoolExecutor(8))
    handlers = grpc.method_handlers_generic_handler("bench.Empty", {"Call": nothing})
    served.add_generic_rpc_handlers((handlers,))
    served.add_insecure_port(f"unix:{address}")
    served.start()
    end_with_parent()
    served.wait_for_termination()


if __name__ == "__main__":
    ways = (handler, stage, circle, attacher, server, relay)
    {way.__name__: way for way in ways}[sys.argv[1]](sys.argv[2])
