# SPDX-License-Identifier: Apache-2.0
"""A function without a port to listen on: it is called through shared memory alone.

The client library lies beside this file, where Python looks first: docs/invoke.md has the one
command that puts it there.
"""

from __future__ import annotations

import aetherless_client


def upper(data: bytes) -> bytes:
    """Return a text in capitals: what is called when no method is named."""
    return data.decode().upper().encode()


def words(data: bytes) -> bytes:
    """Return how many words a text has: ``aetherctl invoke upper --method words``."""
    return str(len(data.split())).encode()


if __name__ == "__main__":
    aetherless_client.serve({"": upper, "words": words})
