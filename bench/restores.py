# SPDX-License-Identifier: Apache-2.0
"""How many restores a second a host sustains: functions called, answered and evicted in turn."""

from __future__ import annotations

import threading
import time
from typing import Any

from framework.clients import call
from framework.mesh import Function, Orchestrator
from framework.programs import handler

from .wakes import put_to_sleep

FUNCTIONS = 4


def cycle(mesh: Orchestrator, function: Function, until: float, counts: list[int]) -> None:
    """Call and evict one function until a time; add the number of calls answered."""
    count = 0
    while time.monotonic() < until:
        answer = call(function.port)
        if not answer.ok:
            raise RuntimeError(f"{function.id}: {answer}")
        count += 1
        put_to_sleep(mesh, function.id)
    counts.append(count)


def measure(seconds: float) -> dict[str, Any]:
    """Restore several copies of the example side by side for some seconds."""
    functions = [Function(f"copy-{n}", handler("hello")) for n in range(FUNCTIONS)]
    with Orchestrator(functions) as mesh:
        mesh.up()
        for function in functions:
            call(function.port)
            put_to_sleep(mesh, function.id)
        counts: list[int] = []
        began = time.monotonic()
        threads = [
            threading.Thread(target=cycle, args=(mesh, function, began + seconds, counts))
            for function in functions
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join(seconds + 60)
        took = time.monotonic() - began
        if len(counts) != FUNCTIONS:
            raise RuntimeError("a function was not answered")
    return {"functions": FUNCTIONS, "seconds": took, "per_second": sum(counts) / took}
