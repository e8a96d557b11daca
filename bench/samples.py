# SPDX-License-Identifier: Apache-2.0
"""Samples and what is said of them."""

from __future__ import annotations

import math
import statistics
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Sequence


def percentile(values: Sequence[float], share: float) -> float:
    """Return the value below or at which a share of the values lies (nearest rank)."""
    ordered = sorted(values)
    return ordered[max(0, math.ceil(share * len(ordered)) - 1)]


@dataclass(frozen=True)
class Summary:
    """What is said of a number of samples, in their unit."""

    count: int
    minimum: float
    p50: float
    p95: float
    p99: float
    maximum: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Summary:
        """Summarise samples; ValueError when there are none."""
        if not values:
            raise ValueError("no samples")
        return cls(
            count=len(values),
            minimum=min(values),
            p50=percentile(values, 0.50),
            p95=percentile(values, 0.95),
            p99=percentile(values, 0.99),
            maximum=max(values),
        )


@dataclass(frozen=True)
class Spread:
    """A ratio's median over rounds, with the lowest and the highest round."""

    median: float
    low: float
    high: float

    @classmethod
    def of(cls, values: Sequence[float]) -> Spread:
        """Summarise the rounds."""
        return cls(statistics.median(values), min(values), max(values))
