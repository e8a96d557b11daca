# SPDX-License-Identifier: Apache-2.0
"""What a soak does to an orchestrator while clients call: evictions, redeploys, SIGKILLs."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import grpc

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from aetherless_common.settings import SERVICES
from aetherless_common.status import from_rpc_error

from .contracts import RPC_TIMEOUT_S
from .processes import wait_until

if TYPE_CHECKING:
    from .mesh import Orchestrator

DEPLOY_TIMEOUT_S = 120.0
# Reasons for which an eviction may be refused or find nobody: clients call, or a service is away.
PASSING = frozenset(
    {"REQUEST_IN_FLIGHT", "PEER_UNREACHABLE", "PEER_TIMEOUT", "OPERATION_IN_PROGRESS"}
    | {"INVALID_STATE_TRANSITION", "INSTANCE_NOT_FOUND"}
)


def redeploy(mesh: Orchestrator, function: str, number: int) -> None:
    """Declare a changed environment and return once the new revision serves."""
    wait_serving(mesh, function, redeclare(mesh, function, number))


def redeclare(mesh: Orchestrator, function: str, number: int) -> int:
    """Declare a changed environment; return the new revision, which does not serve yet."""
    registry = mesh.contracts.stub("registry")
    spec = mesh.contracts.function(function).spec
    spec.environment["DEPLOY"] = str(number)
    request = registry_service_pb2.ApplyConfigRequest(functions=[spec])
    declared = registry.ApplyConfig(request, timeout=RPC_TIMEOUT_S).functions[0]
    return int(declared.revision)


def wait_serving(mesh: Orchestrator, function: str, revision: int) -> None:
    """Return once a revision serves."""

    def served() -> bool:
        now = mesh.contracts.function(function)
        assert now.deploy_state != function_pb2.DEPLOY_STATE_FAILED, now.deploy_error
        return bool(now.serving_revision == revision)

    wait_until(served, f"revision {revision} serves", DEPLOY_TIMEOUT_S)


def evict(mesh: Orchestrator, function: str) -> bool:
    """Try to evict; False when a client's request stood in the way."""
    request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{function}")
    try:
        mesh.contracts.stub("registry").EvictFunction(request, timeout=RPC_TIMEOUT_S)
    except grpc.RpcError as error:
        refused = from_rpc_error(error, "registry", "EvictFunction")
        assert refused.reason in PASSING, refused
        return False
    return True


class Upheaval:
    """Disturbs an orchestrator at random.

    Arguments:
        mesh: The orchestrator.
        function: Its function that clients call.
        seed: What makes the choices; the same seed makes the same.
    """

    def __init__(self, mesh: Orchestrator, function: str, seed: int) -> None:
        self.mesh = mesh
        self.function = function
        self.chance = random.Random(seed)
        self.done = dict.fromkeys(("evictions", "refused evictions", "redeploys", "kills"), 0)

    def disturb(self) -> None:
        """Do one thing: mostly evictions, sometimes a redeploy, sometimes a SIGKILL."""
        match self.chance.choices(("evict", "redeploy", "kill"), (6, 1, 2))[0]:
            case "evict":
                evicted = evict(self.mesh, self.function)
                self.done["evictions" if evicted else "refused evictions"] += 1
            case "redeploy":
                redeploy(self.mesh, self.function, self.chance.getrandbits(30))
                self.done["redeploys"] += 1
            case _:
                self.mesh.kill_and_wait(self.chance.choice(SERVICES))
                self.done["kills"] += 1
