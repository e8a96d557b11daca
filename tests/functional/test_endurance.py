# SPDX-License-Identifier: Apache-2.0
"""Three hundred wakes in a row: none hangs, and nothing grows."""

from __future__ import annotations

from collections import Counter
from dataclasses import dataclass

import pytest

from aetherless.registry.v1 import registry_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S
from framework.guard import orchestrator
from framework.hostfacts import bpf_maps, bpf_programs, mounts, namespaces, read
from framework.mesh import Function, Orchestrator
from framework.processes import in_group, wait_until
from framework.programs import handler

ID = "endless"
SERVICES = ("registry", "snapshotter", "netplane", "ipc", "supervisor")
WARM_UP = 30  # wakes before the first reading: caches and pools have filled by then
WAKES = 300
# Stated bounds for 300 wakes. Kernel objects may not grow at all; a descriptor may be in use at
# the moment of a reading; memory may grow by what 300 kept events cost, far below a leak's 300 x.
MORE_DESCRIPTORS = 2
MORE_SERVICE_KIB = 12 * 1024
MORE_INIT_KIB = 256


@dataclass(frozen=True)
class Reading:
    """What an orchestrator holds at one moment, with its function asleep."""

    descriptors: dict[str, int]
    resident: dict[str, int]
    processes: int
    namespaces: int
    mounts: int
    inner_mounts: int
    programs: int
    maps: int
    groups: int


def read_mesh(mesh: Orchestrator) -> Reading:
    """Take a reading once the next criu waits, so that two readings meet the same state."""
    instance = mesh.contracts.instance(ID)
    mesh.waiting_criu(instance.name.removeprefix("instances/"))
    members = in_group(mesh.group)
    named = {name: mesh.living_process(name) for name in SERVICES}
    named["init"] = next(p for p in members if p.pid == instance.init_pid)
    init_mounts = read(f"/proc/{instance.init_pid}/mountinfo") or ""
    return Reading(
        descriptors={name: p.descriptor_count() for name, p in named.items()},
        resident={name: p.resident_kib() for name, p in named.items()},
        processes=len(members),
        namespaces=len(frozenset().union(*(namespaces(p.pid) for p in members))),
        mounts=len(mounts()),
        inner_mounts=len(init_mounts.splitlines()),
        programs=len(bpf_programs()),
        maps=len(bpf_maps()),
        groups=len([path for path in mesh.group.rglob("*") if path.is_dir()]),
    )


def wake_and_evict(mesh: Orchestrator, port: int) -> str:
    """Call the sleeping function, evict it, and return what went wrong, if anything."""
    answer = call(port, timeout_s=10)
    request = registry_service_pb2.EvictFunctionRequest(name=f"functions/{ID}")
    mesh.contracts.stub("registry").EvictFunction(request, timeout=RPC_TIMEOUT_S)
    wait_until(lambda: mesh.contracts.instance(ID).root_pid == 0, "evicted")
    if answer.retransmissions:
        return "retransmitted"
    return "" if answer.ok else answer.error


@pytest.mark.slow
@pytest.mark.timeout(280)
def test_three_hundred_wakes() -> None:
    """Every wake is answered, and descriptors, memory, mounts, namespaces and pids stay put."""
    function = Function(ID, handler("plain"))
    with orchestrator(function) as mesh:
        for _ in range(WARM_UP):
            assert wake_and_evict(mesh, function.port) == ""
        before = read_mesh(mesh)
        results = Counter(wake_and_evict(mesh, function.port) for _ in range(WAKES))
        after = read_mesh(mesh)
        assert results == {"": WAKES}
        instance = mesh.contracts.instance(ID)
        assert (instance.wakes, instance.failed_wakes) == (WARM_UP + WAKES, 0)
        assert_within_bounds(before, after)


def assert_within_bounds(before: Reading, after: Reading) -> None:
    """Check the stated bounds."""
    kernel = ("processes", "namespaces", "mounts", "inner_mounts", "programs", "maps", "groups")
    grown = {k: getattr(after, k) - getattr(before, k) for k in kernel}
    assert all(growth <= 0 for growth in grown.values()), grown
    for name in before.descriptors:
        more = after.descriptors[name] - before.descriptors[name]
        assert more <= MORE_DESCRIPTORS, f"{name} holds {more} more descriptors"
        more = after.resident[name] - before.resident[name]
        limit = MORE_INIT_KIB if name == "init" else MORE_SERVICE_KIB
        assert more <= limit, f"{name} holds {more} KiB more"
