# SPDX-License-Identifier: Apache-2.0
"""Quantiles of the log-linear histogram that the translation programs fill.

Buckets as in bpf/include/consts.h: 32 for the values 0 to 31 units, then 32 for each power of two;
a quantile is off by at most 1/64 of itself.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_netplane.layout import HISTOGRAM_SUB, HISTOGRAM_UNIT_NS

if TYPE_CHECKING:
    from collections.abc import Sequence


def bucket_middle_ns(bucket: int) -> int:
    """Return the middle of a bucket, in nanoseconds."""
    octave, step = divmod(bucket, HISTOGRAM_SUB)
    width = 1 << max(octave - 1, 0)
    low = (HISTOGRAM_SUB + step) * width if octave else step
    return low * HISTOGRAM_UNIT_NS + width * HISTOGRAM_UNIT_NS // 2


def quantile_ns(buckets: Sequence[int], share: float) -> int | None:
    """Return the value, in ns, that ``share`` of all values do not exceed; None when empty."""
    total = sum(buckets)
    seen = 0
    for bucket, count in enumerate(buckets):
        seen += count
        if count and seen >= share * total:
            return bucket_middle_ns(bucket)
    return None
