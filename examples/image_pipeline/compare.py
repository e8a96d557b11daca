# SPDX-License-Identifier: Apache-2.0
"""Runs the image pipeline, then the same functions over HTTP, and prints what both took.

.venv/bin/python examples/image_pipeline/compare.py [FILE.png] [--count N] [-o json]
                                                     [--save SMALL.png]

Without a file it makes a picture of 640 x 480.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.request import Request, urlopen

from picture import Picture, encode

from aetherless.ipc.v1 import ipc_service_pb2, ipc_service_pb2_grpc
from aetherless_common.channels import connect
from aetherless_common.settings import Settings

if TYPE_CHECKING:
    from collections.abc import Callable

WIDTH, HEIGHT = 640, 480
DECODE = "http://localhost:8091"


def made() -> bytes:
    """Return a picture of slopes."""
    rows = [
        bytes(value & 255 for x in range(WIDTH) for value in (x, y, x + y)) for y in range(HEIGHT)
    ]
    return encode(Picture(WIDTH, HEIGHT, 3, rows))


def timed(call: Callable[[], bytes], count: int) -> tuple[bytes, list[float]]:
    """Return the first answer, which all others must equal, and each call's milliseconds."""
    first, took = call(), []
    for _ in range(count):
        began = time.perf_counter()
        answer = call()
        took.append((time.perf_counter() - began) * 1000)
        if answer != first:
            raise SystemExit("two answers differ")
    return first, took


def tell(found: dict[str, list[float]], output: str) -> None:
    """Print the milliseconds that the calls of each way took: all of them, or what they come to."""
    if output == "json":
        print(json.dumps(found))
        return
    for name, took in found.items():
        spread = f"{min(took):.1f} to {max(took):.1f}"
        print(f"{name:8}  median {statistics.median(took):6.1f} ms, {spread} of {len(took)}")


def main() -> None:
    """Compare."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("file", nargs="?", type=Path)
    parser.add_argument("--count", type=int, default=50)
    parser.add_argument("--save", type=Path)
    parser.add_argument("-o", "--output", choices=("table", "json"), default="table")
    parser.add_argument("--decode", default=DECODE, help="where the first function is called")
    asked = parser.parse_args()
    data = asked.file.read_bytes() if asked.file else made()

    def over_http() -> bytes:
        # The address is the caller's own.
        with urlopen(Request(asked.decode, data), timeout=30) as answer:  # noqa: S310
            return bytes(answer.read())

    with connect(Settings.load(), "ipc") as channel:
        ipc = ipc_service_pb2_grpc.IpcServiceStub(channel)
        request = ipc_service_pb2.InvokeRequest(pipeline="pipelines/image", data=data)
        small, piped = timed(lambda: bytes(ipc.Invoke(request).data), asked.count)
    same, http = timed(over_http, asked.count)
    if small != same:
        raise SystemExit("the two ways differ")
    tell({"pipeline": piped, "HTTP": http}, asked.output)
    if asked.save:
        asked.save.write_bytes(small)


if __name__ == "__main__":
    main()
