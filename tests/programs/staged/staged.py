# SPDX-License-Identifier: Apache-2.0
"""A stage: adds its function's name to what it is given, and writes down that it did.

A word of the form ``<what>@<function>`` is for the function of that name: fail, or die unless the
record may have been handed out before. With several inputs their words stand in brackets.
"""

from __future__ import annotations

import os
import signal

import aetherless_client

NAME = os.environ["AETHER_FUNCTION_ID"]


def handle(data: bytes) -> bytes:
    """Add the name, unless a word asks for something else."""
    request = aetherless_client.current_request()
    words = data
    if request.inputs > 1:
        words = b"[" + b"|".join(request.parts) + b"]"
    print(f"did {request.id}", flush=True)
    if f"fail@{NAME}".encode() in words:
        raise ValueError("not like this")
    if f"die@{NAME}".encode() in words and request.attempt == 1:
        signal.raise_signal(signal.SIGKILL)
    return words + b" " + NAME.encode()


if __name__ == "__main__":
    aetherless_client.serve(handle)
