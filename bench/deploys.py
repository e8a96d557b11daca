# SPDX-License-Identifier: Apache-2.0
"""What a deploy adds to the handler's own start and warm-up, and how fast a rollback is."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2
from framework.contracts import RPC_TIMEOUT_S
from framework.mesh import Orchestrator
from framework.processes import wait_until

from .samples import Summary

if TYPE_CHECKING:
    from .programs import Program

# The phases that are the handler's own: from its start to its first answer.
OWN_PHASES = frozenset({"start", "ready", "warm-up"})


def own_ms(mesh: Orchestrator, function: str) -> float:
    """Return how long the handler itself took to start and answer in the newest deploy."""
    request = snapshotter_service_pb2.GetSnapshotRequest(
        name=mesh.contracts.instance(function).snapshot
    )
    stub = mesh.contracts.stub("snapshotter")
    phases = stub.GetSnapshot(request, timeout=RPC_TIMEOUT_S).snapshot.phases
    return float(sum(p.duration.ToMicroseconds() / 1000 for p in phases if p.name in OWN_PHASES))


def redeploy_ms(mesh: Orchestrator, function: str, number: int) -> float:
    """Declare a changed environment; return the time until the new revision serves."""
    registry = mesh.contracts.stub("registry")
    spec = mesh.contracts.function(function).spec
    spec.environment["BENCH_DEPLOY"] = str(number)
    began = time.monotonic()
    request = registry_service_pb2.ApplyConfigRequest(functions=[spec])
    declared = registry.ApplyConfig(request, timeout=RPC_TIMEOUT_S).functions[0]
    wait_serving(mesh, function, declared.revision)
    return (time.monotonic() - began) * 1000


def rollback_ms(mesh: Orchestrator, function: str) -> float:
    """Go back to the revision that served before; return the time until it serves."""
    registry = mesh.contracts.stub("registry")
    began = time.monotonic()
    request = registry_service_pb2.RollbackFunctionRequest(name=f"functions/{function}")
    declared = registry.RollbackFunction(request, timeout=RPC_TIMEOUT_S).function
    wait_serving(mesh, function, declared.revision)
    return (time.monotonic() - began) * 1000


def wait_serving(mesh: Orchestrator, function: str, revision: int) -> None:
    """Return when a revision serves.

    Raises:
        RuntimeError: its deploy failed.
    """

    def ended() -> bool:
        now = mesh.contracts.function(function)
        if now.deploy_state == function_pb2.DEPLOY_STATE_FAILED:
            raise RuntimeError(f"{function}: {now.deploy_error.message}")
        return bool(now.serving_revision == revision)

    wait_until(ended, f"{function} serves revision {revision}", 120)


def wait_alone(mesh: Orchestrator, function: str) -> None:
    """Return when no replaced revision has an instance any more."""
    wait_until(lambda: len(mesh.contracts.instances(function)) == 1, "the old one is gone")


def measure(program: Program, deploys: int) -> dict[str, Any]:
    """Deploy a program anew a number of times, then go back and forth as often."""
    totals, owns, rollbacks = [], [], []
    with Orchestrator([program.function()]) as mesh:
        mesh.up()
        for number in range(deploys):
            totals.append(redeploy_ms(mesh, program.id, number))
            wait_alone(mesh, program.id)
            owns.append(own_ms(mesh, program.id))
        for _ in range(deploys):
            rollbacks.append(rollback_ms(mesh, program.id))
            wait_alone(mesh, program.id)
    added = [total - own for total, own in zip(totals, owns, strict=True)]
    series = {"total": totals, "own": owns, "added": added, "rollback": rollbacks}
    return {name: asdict(Summary.of(values)) for name, values in series.items()}
