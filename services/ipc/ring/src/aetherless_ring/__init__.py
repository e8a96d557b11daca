# SPDX-License-Identifier: Apache-2.0
"""Lock-free rings in shared memory: one producer, one consumer, a checksum for each record.

``Producer`` and ``Consumer`` are those of the extension where it was built, else the reference's:
the same layout, the same behaviour. ``IMPLEMENTATION`` says which.
"""

from __future__ import annotations

from aetherless_ring.errors import (
    PayloadTooLargeError,
    RingClosedError,
    RingCorruptError,
    RingEmptyError,
    RingError,
    RingFullError,
)

try:
    from aetherless_ring._native import Consumer, Producer
except ModuleNotFoundError:
    from aetherless_ring.reference import (  # type: ignore[assignment]  # the same interface
        Consumer,
        Producer,
    )

    IMPLEMENTATION = "reference"
else:
    IMPLEMENTATION = "native"

__all__ = [
    "IMPLEMENTATION",
    "Consumer",
    "PayloadTooLargeError",
    "Producer",
    "RingClosedError",
    "RingCorruptError",
    "RingEmptyError",
    "RingError",
    "RingFullError",
]
