# SPDX-License-Identifier: Apache-2.0
"""The image pipeline of the examples beside the same functions over HTTP, one after the other."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import asdict
from typing import Any

from framework.image_example import DECODE, copied
from framework.mesh import Orchestrator

from .samples import Spread, Summary, percentile

ROUNDS = 5
PICTURES = 20
LIMIT_S = 120
PIPELINE, HTTP = "pipeline", "HTTP"


def one_round(mesh: Orchestrator, decode: int) -> dict[str, list[float]]:
    """Return each call's milliseconds by its way, as the example's own comparison takes them."""
    script = str(mesh.home / "image_pipeline" / "compare.py")
    where = f"http://localhost:{decode}"
    done = subprocess.run(
        [sys.executable, script, "--count", str(PICTURES), "--decode", where, "-o", "json"],
        env=mesh.environment,
        stdout=subprocess.PIPE,
        check=True,
        timeout=LIMIT_S,
    )
    took: dict[str, list[float]] = json.loads(done.stdout)
    return took


def measure() -> dict[str, Any]:
    """Measure rounds, each with both ways; the first is for warming up."""
    with Orchestrator() as mesh:
        mesh.config, ports = copied(mesh.home)
        mesh.up()
        rounds = [one_round(mesh, ports[DECODE]) for _ in range(ROUNDS + 1)][1:]
    return summary(rounds)


def summary(rounds: list[dict[str, list[float]]]) -> dict[str, Any]:
    """Return what both ways took, and the ratio of their medians in each round."""
    ratios = [percentile(each[PIPELINE], 0.5) / percentile(each[HTTP], 0.5) for each in rounds]
    found = {
        way: asdict(Summary.of([ms for each in rounds for ms in each[way]]))
        for way in (PIPELINE, HTTP)
    }
    return found | {"ratio": asdict(Spread.of(ratios))}
