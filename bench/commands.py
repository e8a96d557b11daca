# SPDX-License-Identifier: Apache-2.0
"""How long ``aetherctl`` keeps its user waiting."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import Any

from framework.mesh import Function, Orchestrator
from framework.programs import handler

from .samples import Summary

COMMANDS = {"help": ("--help",), "list": ("list",)}


def wall_ms(mesh: Orchestrator, *arguments: str) -> float:
    """Return how long one command takes, in milliseconds."""
    began = time.monotonic()
    mesh.must(*arguments)
    return (time.monotonic() - began) * 1000


def measure(runs: int) -> dict[str, Any]:
    """Measure each command, in turn, with services that are up."""
    series: dict[str, list[float]] = {name: [] for name in COMMANDS}
    with Orchestrator([Function("hello-api", handler("hello"))]) as mesh:
        mesh.up()
        for arguments in COMMANDS.values():
            wall_ms(mesh, *arguments)
        for _ in range(runs):
            for name, arguments in COMMANDS.items():
                series[name].append(wall_ms(mesh, *arguments))
    return {name: asdict(Summary.of(values)) for name, values in series.items()}
