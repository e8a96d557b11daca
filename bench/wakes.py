# SPDX-License-Identifier: Apache-2.0
"""Connect to first byte with nothing running, beside a fresh start and CRIU's command line."""

from __future__ import annotations

import contextlib
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import registry_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S
from framework.mesh import Function, Orchestrator
from framework.processes import wait_until
from framework.programs import handler

from .plain import CommandLineRestore, fresh_start_ms, ready_socket
from .samples import Summary

if TYPE_CHECKING:
    from pathlib import Path

ID = "hello-api"
# One comparison after so many wakes, so that all three meet the same minutes of the host.
COMPARE_EVERY = 10
DISCARDED = 5


@dataclass
class WakeSamples:
    """What was measured, in milliseconds."""

    wake: list[float] = field(default_factory=list)
    restore: list[float] = field(default_factory=list)
    request: list[float] = field(default_factory=list)
    fresh_start: list[float] = field(default_factory=list)
    criu_command: list[float] = field(default_factory=list)
    retransmissions: int = 0

    def summaries(self) -> dict[str, Any]:
        """Return a summary per series."""
        series = ("wake", "restore", "request", "fresh_start", "criu_command")
        found = {name: asdict(Summary.of(getattr(self, name))) for name in series}
        return found | {"retransmissions": self.retransmissions}


def put_to_sleep(mesh: Orchestrator) -> None:
    """Evict the function and return once its next criu waits."""
    request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{ID}")
    mesh.contracts.stub("registry").EvictFunction(request, timeout=RPC_TIMEOUT_S)
    wait_until(lambda: mesh.contracts.instance(ID).root_pid == 0, "nothing runs")
    mesh.waiting_criu(mesh.contracts.instance_id(ID))


def wake_once(mesh: Orchestrator, port: int, samples: WakeSamples) -> None:
    """Measure one wake, as the client and as the sandbox saw it."""
    put_to_sleep(mesh)
    wakes = mesh.contracts.instance(ID).wakes
    answer = call(port)
    if not answer.ok:
        raise RuntimeError(f"a wake was not answered: {answer}")
    wait_until(lambda: mesh.contracts.instance(ID).wakes == wakes + 1, "the wake is on record")
    last = mesh.contracts.instance(ID).last_wake
    samples.wake.append(answer.first_byte_s * 1000)
    samples.restore.append(last.restore_duration.ToMicroseconds() / 1000)
    samples.request.append(last.request_latency.ToMicroseconds() / 1000)
    samples.retransmissions += answer.retransmissions


def measure(wakes: int, path: Path | None = None) -> WakeSamples:
    """Measure wakes of examples/hello.py (or another handler), and the two comparisons."""
    program = path or handler("hello")
    function = Function(ID, program)
    samples = WakeSamples()
    with (
        Orchestrator([function]) as mesh,
        ready_socket() as ready,
        contextlib.closing(CommandLineRestore(program, ready)) as command_line,
    ):
        mesh.up()
        call(function.port)
        for _ in range(DISCARDED):
            wake_once(mesh, function.port, WakeSamples())
        for number in range(wakes):
            wake_once(mesh, function.port, samples)
            if number % COMPARE_EVERY == 0:
                samples.fresh_start.append(fresh_start_ms(program, ready))
                samples.criu_command.append(command_line.restore_ms())
    return samples
