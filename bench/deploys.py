# SPDX-License-Identifier: Apache-2.0
"""What a deploy adds to the handler's own start and warm-up."""

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

    def ended() -> bool:
        now = mesh.contracts.function(function)
        if now.deploy_state == function_pb2.DEPLOY_STATE_FAILED:
            raise RuntimeError(f"{function}: {now.deploy_error.message}")
        return bool(now.serving_revision == declared.revision)

    wait_until(ended, f"{function} serves its new revision", 120)
    return (time.monotonic() - began) * 1000


def measure(program: Program, deploys: int) -> dict[str, Any]:
    """Deploy a program anew a number of times."""
    totals, owns = [], []
    with Orchestrator([program.function()]) as mesh:
        mesh.up()
        for number in range(deploys):
            totals.append(redeploy_ms(mesh, program.id, number))
            wait_until(
                lambda: len(mesh.contracts.instances(program.id)) == 1, "the old one is gone"
            )
            owns.append(own_ms(mesh, program.id))
    added = [total - own for total, own in zip(totals, owns, strict=True)]
    series = {"total": totals, "own": owns, "added": added}
    return {name: asdict(Summary.of(values)) for name, values in series.items()}
