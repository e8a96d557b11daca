# SPDX-License-Identifier: Apache-2.0
"""The image pipeline of the examples beside the same functions over HTTP, one after the other."""

from __future__ import annotations

import json
from dataclasses import asdict
from typing import Any

from framework.image_example import compare, up
from framework.mesh import Orchestrator

from .samples import Spread, Summary, percentile

ROUNDS = 5
PICTURES = 20
PIPELINE, HTTP = "pipeline", "HTTP"


def one_round(mesh: Orchestrator, decode: str) -> dict[str, list[float]]:
    """Return each call's milliseconds by its way, as the example's own comparison takes them."""
    printed = compare(mesh, decode, "--count", str(PICTURES), "-o", "json")
    took: dict[str, list[float]] = json.loads(printed)
    return took


def measure() -> dict[str, Any]:
    """Measure rounds, each with both ways; the first is for warming up."""
    with Orchestrator() as mesh:
        decode = up(mesh)
        rounds = [one_round(mesh, decode) for _ in range(ROUNDS + 1)][1:]
    return summary(rounds)


def summary(rounds: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return what both ways took, and the ratio of their medians in each round."""
    ratios = [percentile(each[PIPELINE], 0.5) / percentile(each[HTTP], 0.5) for each in rounds]
    found = {
        way: asdict(Summary.of([ms for each in rounds for ms in each[way]]))
        for way in (PIPELINE, HTTP)
    }
    return found | {"ratio": asdict(Spread.of(ratios))}
