# SPDX-License-Identifier: Apache-2.0
"""The hop between two stages that are both at work: a record that goes round between them.

Two processes serve with the client library, each a stage whose one output is the other's input. No
pipeline that can be declared is a circle, so the edges are handed out here; the service, which is
not in the way of a hop, is not there at all. Each hop is timed by the handlers, from before the
one returns until the other was called.
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import tempfile
from contextlib import ExitStack
from dataclasses import asdict
from pathlib import Path
from typing import Any

from bench.samples import Summary
from framework.channel_edges import Edge, declare
from framework.channel_service import Attachment, Service, request

from .service import PEER, WAIT_S, process

COUNT = 5_000  # of hops into each of the two
DISCARDED = 500
SPIN_S = "0.005"
# How they wait, and whether both have one core: to wake another core is most of a sleeping hop.
WAYS = {
    "sleeping": ("0", False),
    "sleeping, on one core": ("0", True),
    "spinning": (SPIN_S, False),
}


def _stage(stack: ExitStack, path: Path, spin: str, cores: set[int]) -> subprocess.Popen[str]:
    command = (sys.executable, str(PEER), "circle", f"{spin}/{COUNT}")
    child = stack.enter_context(process(*command, stdout=subprocess.PIPE))
    os.sched_setaffinity(child.pid, cores)
    if child.stdin is not None:
        child.stdin.write(f"{path}\n")
        child.stdin.flush()
    return child


def _said(child: subprocess.Popen[str]) -> list[float]:
    """Return how long the hops into a stage took, once it says so, in µs."""
    if not child.stdout or not select.select([child.stdout], [], [], WAIT_S)[0]:
        raise TimeoutError("the record does not go round")
    return [each / 1000 for each in json.loads(child.stdout.readline())]


def hops(spin: str, *, on_one_core: bool) -> dict[str, Any]:
    """Return how long the hops took, in µs."""
    cores = os.sched_getaffinity(0)
    if on_one_core:
        cores = {min(cores)}
    with ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
        sides: list[Attachment] = []
        children: list[subprocess.Popen[str]] = []
        for place, name in enumerate("ab"):
            service = stack.enter_context(Service(folder / name))
            children.append(_stage(stack, folder / name, spin, cores))
            sides.append(service.attached())
            declare(sides[-1], f"p/{name}", number=place, inputs=1, outputs=1)
        first, second = sides
        for name, writes, reads in (("p/a/b", first, second), ("p/b/a", second, first)):
            edge = stack.enter_context(Edge(name))
            edge.drain(writes)
            edge.feed(reads)
        first.send(request(1, b"", method="p/a"))
        took = [each for child in children for each in _said(child)[DISCARDED:]]
    return asdict(Summary.of(took))


def measure() -> dict[str, Any]:
    """Measure all ways."""
    return {name: hops(spin, on_one_core=one) for name, (spin, one) in WAYS.items()}
