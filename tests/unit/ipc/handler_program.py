# SPDX-License-Identifier: Apache-2.0
"""A function's handlers: reads the side socket's path, then serves until it is killed."""

from __future__ import annotations

import os
import sys
import threading
import time

from aetherless_client import current_request, serve


def fail(_: bytes) -> bytes:
    """Fail."""
    raise ValueError("not like this")


def sleep(data: bytes) -> bytes:
    """Take as long as is said."""
    time.sleep(float(data))
    return data


def about(_: bytes) -> bytes:
    """Tell what came with the call."""
    request = current_request()
    return f"{os.getpid()} {request.attempt} {request.trace.decode()}".encode()


def die_at_first(_: bytes) -> bytes:
    """End the process, unless the call was delivered before."""
    attempt = current_request().attempt
    if attempt == 1:
        os._exit(1)
    return str(attempt).encode()


def blow_up(data: bytes) -> bytes:
    """Return more than fits."""
    return bytes(int(data))


def main() -> None:
    """Serve in as many threads as is said."""
    threads = int(sys.argv[1])
    path = sys.stdin.readline().strip()
    # The process that reads this is killed; one that is left alone must not stay.
    threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()
    methods = {
        "": lambda data: data.upper(),
        "fail": fail,
        "sleep": sleep,
        "about": about,
        "die": die_at_first,
        "blow": blow_up,
    }
    serve(methods, path=path, threads=threads)


if __name__ == "__main__":
    main()
