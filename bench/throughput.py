# SPDX-License-Identifier: Apache-2.0
"""Requests per second through a trigger port against the same program without a sandbox."""

from __future__ import annotations

import json
import subprocess
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from framework.clients import call
from framework.mesh import Function, Orchestrator
from framework.programs import handler

from . import REPOSITORY
from .plain import plain_process, ready_socket
from .samples import Spread

if TYPE_CHECKING:
    from pathlib import Path

LOAD = REPOSITORY / "build" / "bench" / "load"
CONNECTIONS = 16
MODES = ("keep", "new")
ID = "target"


def build_load() -> None:
    """Build the load generator; CalledProcessError when the compiler refuses it."""
    LOAD.parent.mkdir(parents=True, exist_ok=True)
    source = REPOSITORY / "bench" / "load.c"
    subprocess.run(["gcc", "-O2", "-Wall", "-o", str(LOAD), str(source)], check=True, timeout=60)


def load(port: int, mode: str, seconds: float) -> dict[str, float]:
    """Load a port of this host's loopback; return what the generator counted."""
    command = [str(LOAD), "127.0.0.1", str(port), str(CONNECTIONS), str(seconds), mode]
    limit = seconds + 30
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=limit)
    counted: dict[str, float] = json.loads(done.stdout)
    if counted["errors"]:
        raise RuntimeError(f"{mode} on port {port}: {counted}")
    return counted


def measure_program(name: str, rounds: int, seconds: float) -> dict[str, Any]:
    """Measure one program, both ways in turn, so that both meet the same minutes of the host."""
    program: Path = handler(name)
    function = Function(ID, program)
    found: dict[str, list[dict[str, float]]] = {}
    with (
        Orchestrator([function]) as mesh,
        ready_socket() as ready,
        plain_process(program, ready) as plain,
    ):
        mesh.up()
        plain.first_byte_s()
        if not call(function.port).ok:
            raise RuntimeError(f"{name} does not answer")
        for _ in range(rounds):
            for mode in MODES:
                found.setdefault(f"plain-{mode}", []).append(load(plain.port, mode, seconds))
                found.setdefault(f"trigger-{mode}", []).append(load(function.port, mode, seconds))
    return summary(found)


def rates(rounds: list[dict[str, float]]) -> list[float]:
    """Return the requests per second of each round."""
    return [counted["per_second"] for counted in rounds]


def summary(found: dict[str, list[dict[str, float]]]) -> dict[str, Any]:
    """Return rates, latencies and the ratio of neighbouring rounds, per mode."""
    result: dict[str, Any] = {}
    for mode in MODES:
        plain, trigger = rates(found[f"plain-{mode}"]), rates(found[f"trigger-{mode}"])
        ratios = [ours / theirs for ours, theirs in zip(trigger, plain, strict=True)]
        result[mode] = {
            "plain": asdict(Spread.of(plain)),
            "trigger": asdict(Spread.of(trigger)),
            "ratio": asdict(Spread.of(ratios)),
            "rounds": {"plain": plain, "trigger": trigger},
            "plain_p99_ms": max(counted["p99_ms"] for counted in found[f"plain-{mode}"]),
            "trigger_p99_ms": max(counted["p99_ms"] for counted in found[f"trigger-{mode}"]),
        }
    return result


def measure(rounds: int, seconds: float) -> dict[str, Any]:
    """Measure the example handler, and a Go server, which shows the path more than itself."""
    build_load()
    return {name: measure_program(name, rounds, seconds) for name in ("hello", "go")}
