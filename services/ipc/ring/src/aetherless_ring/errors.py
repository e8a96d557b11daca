# SPDX-License-Identifier: Apache-2.0
"""What a ring refuses, by the same names in every implementation."""

from __future__ import annotations


class RingError(Exception):
    """Anything that a ring refuses. ``reason`` is the contract's word for it."""

    reason = "INTERNAL"


class RingFullError(RingError):
    """There is no room for the record now."""

    reason = "RING_FULL"


class RingEmptyError(RingError):
    """There is no record now."""

    reason = "RING_EMPTY"


class PayloadTooLargeError(RingError):
    """A payload is empty, or larger than a record may be."""

    reason = "PAYLOAD_TOO_LARGE"


class RingClosedError(RingError):
    """The region was closed by the side that made it."""

    reason = "PEER_GONE"


class RingCorruptError(RingError):
    """What the other side wrote can't be: the ring is of no more use.

    Args:
        fault: ``index``, ``length``, ``sequence`` or ``checksum``.
        expected: what it had to be, or its bound.
        actual: what it is.
    """

    reason = "RING_CORRUPT"

    def __init__(self, fault: str, expected: int, actual: int) -> None:
        super().__init__(f"{fault}: expected {expected:#x}, is {actual:#x}")
        self.fault = fault
        self.expected = expected
        self.actual = actual
