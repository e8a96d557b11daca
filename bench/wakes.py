# SPDX-License-Identifier: Apache-2.0
"""Connect to first byte with nothing running, beside other ways to a first answer."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import registry_service_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S
from framework.mesh import Orchestrator
from framework.processes import wait_until

from .peers import peers_of
from .plain import ready_socket
from .samples import Summary

if TYPE_CHECKING:
    from .programs import Program

# One comparison after so many wakes, so that all ways meet the same minutes of the host.
COMPARE_EVERY = 10
DISCARDED = 5
SERIES = ("wake", "restore", "request")


@dataclass
class WakeSamples:
    """What was measured of one program, in milliseconds."""

    wake: list[float] = field(default_factory=list)
    restore: list[float] = field(default_factory=list)
    request: list[float] = field(default_factory=list)
    peers: dict[str, list[float]] = field(default_factory=dict)
    retransmissions: int = 0
    snapshot: dict[str, int] = field(default_factory=dict)

    def summaries(self) -> dict[str, Any]:
        """Return a summary per series."""
        found: dict[str, Any] = {n: asdict(Summary.of(getattr(self, n))) for n in SERIES}
        found["peers"] = {n: asdict(Summary.of(values)) for n, values in self.peers.items()}
        found["samples"] = {"wake": self.wake, **self.peers}
        return found | {"retransmissions": self.retransmissions, "snapshot": self.snapshot}


def put_to_sleep(mesh: Orchestrator, function: str) -> None:
    """Evict a function and return once its next criu waits."""
    request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{function}")
    mesh.contracts.stub("registry").EvictFunction(request, timeout=RPC_TIMEOUT_S)
    wait_until(lambda: mesh.contracts.instance(function).root_pid == 0, "nothing runs")
    mesh.waiting_criu(mesh.contracts.instance_id(function))


def wake_once(mesh: Orchestrator, program: Program, port: int, samples: WakeSamples) -> None:
    """Measure one wake, as the client and as the sandbox saw it."""
    put_to_sleep(mesh, program.id)
    wakes = mesh.contracts.instance(program.id).wakes
    answer = call(port)
    if not answer.ok:
        raise RuntimeError(f"a wake of {program.id} was not answered: {answer}")
    wait_until(lambda: mesh.contracts.instance(program.id).wakes == wakes + 1, "it is on record")
    last = mesh.contracts.instance(program.id).last_wake
    samples.wake.append(answer.first_byte_s * 1000)
    samples.restore.append(last.restore_duration.ToMicroseconds() / 1000)
    samples.request.append(last.request_latency.ToMicroseconds() / 1000)
    samples.retransmissions += answer.retransmissions


def snapshot_sizes(mesh: Orchestrator, function: str) -> dict[str, int]:
    """Return the sizes of a function's snapshot, in bytes."""
    request = snapshotter_service_pb2.GetSnapshotRequest(
        name=mesh.contracts.instance(function).snapshot
    )
    stub = mesh.contracts.stub("snapshotter")
    snapshot = stub.GetSnapshot(request, timeout=RPC_TIMEOUT_S).snapshot
    names = ("size_bytes", "resident_bytes", "shared_bytes", "eager_bytes")
    return {name: getattr(snapshot, name) for name in names}


def measure(program: Program, wakes: int) -> WakeSamples:
    """Measure wakes of one program, and in between its peers."""
    function = program.function()
    samples = WakeSamples()
    with (
        Orchestrator([function]) as mesh,
        ready_socket() as ready,
        peers_of(program, ready) as peers,
    ):
        mesh.up()
        samples.snapshot = snapshot_sizes(mesh, program.id)
        call(function.port)
        for _ in range(DISCARDED):
            wake_once(mesh, program, function.port, WakeSamples())
        for number in range(wakes):
            wake_once(mesh, program, function.port, samples)
            if number % COMPARE_EVERY == 0:
                for name, peer in peers.items():
                    samples.peers.setdefault(name, []).append(peer.first_byte_ms())
    return samples
