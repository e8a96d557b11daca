# SPDX-License-Identifier: Apache-2.0
"""Going back to a kept revision: a real registry beside services that keep their contracts."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import (
    Aborted,
    DataLoss,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
    Unavailable,
)
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

WARM = function_pb2.FUNCTION_STATE_WARM_SNAPSHOT
RUNNING = function_pb2.FUNCTION_STATE_RUNNING
KEPT = function_pb2.REVISION_STATE_KEPT
SERVING = function_pb2.REVISION_STATE_SERVING
FAILED = function_pb2.REVISION_STATE_FAILED
ROLLBACK = ["CreateInstance", "AttachEndpoint", "ArmInstance", "SetRoute"]


def deploy(registry: RegistryClient, host: FakeHost, spec: Spec, *memories: int) -> None:
    """Deploy a revision per memory limit, each once the one before it is replaced."""
    for memory in memories:
        answer = registry.apply(spec(memory_limit_mb=memory))
        serves(registry, host, answer.functions[0].revision)


def serves(registry: RegistryClient, host: FakeHost, revision: int) -> function_pb2.Function:
    """Wait until a revision serves, alone, and return the function."""
    registry.deployed(revision=revision)
    wait_until(lambda: host.names()["instances"] == [f"hello-r{revision}-0"])
    wait_until(lambda: registry.get().state in {WARM, RUNNING})
    return registry.get()


def states(function: function_pb2.Function) -> list[tuple[int, int, int]]:
    """Return number, state and memory limit of each revision."""
    return [(each.revision, each.state, each.spec.memory_limit_mb) for each in function.revisions]


def test_three_revisions_are_kept(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """The one that serves and two before it, with snapshots and files; the rest goes."""
    deploy(registry, host, spec, 101, 102, 103, 104)
    function = registry.get()
    assert states(function) == [(4, SERVING, 104), (3, KEPT, 103), (2, KEPT, 102)]
    times = [each.create_time.ToNanoseconds() for each in function.revisions]
    assert times == sorted(times, reverse=True)
    assert len(set(times)) == 3
    wait_until(lambda: host.names()["roots"] == ["hello/2", "hello/3", "hello/4"])
    assert host.names()["snapshots"] == ["hello-r2", "hello-r3", "hello-r4"]


def test_it_goes_back_without_a_new_snapshot(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The earlier declaration is the present one again, restored from what was kept."""
    deploy(registry, host, spec, 101, 102)
    host.calls.clear()
    answer = registry.roll_back()
    assert (answer.revision, answer.deploy_state) == (1, function_pb2.DEPLOY_STATE_DEPLOYING)
    function = serves(registry, host, 1)
    assert host.calls == [*ROLLBACK, "DetachEndpoint", "DeleteInstance"]
    assert function.spec == spec(memory_limit_mb=101)
    assert states(function) == [(2, KEPT, 102), (1, SERVING, 101)]
    assert host.instances["hello-r1-0"].workload.memory_limit_bytes == 101 << 20


def test_back_and_forth(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """Without a number it goes to what served before; numbers are never given twice."""
    deploy(registry, host, spec, 101, 102, 103)
    registry.roll_back(revision=1)
    serves(registry, host, 1)
    registry.roll_back()
    serves(registry, host, 3)
    assert registry.roll_back(revision=3).deploy_state == function_pb2.DEPLOY_STATE_DEPLOYED
    registry.roll_back(revision=2)
    serves(registry, host, 2)
    deploy(registry, host, spec, 104)
    assert [each.revision for each in registry.get().revisions] == [4, 3, 2]


@pytest.mark.parametrize("rpc", ROLLBACK)
def test_a_failure_leaves_the_present_one(
    registry: RegistryClient, host: FakeHost, spec: Spec, rpc: str
) -> None:
    """It goes on serving; what was gone back to is kept, and can be tried again."""
    deploy(registry, host, spec, 101, 102)
    before = host.names()
    host.faults[rpc].append(FailedPrecondition("SANDBOX_FAILED", "no room"))
    registry.roll_back()
    function = registry.failed()
    assert (function.revision, function.serving_revision) == (1, 2)
    assert function.deploy_error.reason == "SANDBOX_FAILED"
    assert states(function) == [(2, SERVING, 102), (1, KEPT, 101)]
    wait_until(lambda: host.names() == before)
    registry.roll_back(revision=1)
    serves(registry, host, 1)


def test_a_failed_revision_is_gone_back_from(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """When what was declared last does not serve, the one before it does: nothing is to be done."""
    deploy(registry, host, spec, 101)
    host.faults["CreateSnapshot"].append(FailedPrecondition("HANDLER_EXITED", "it ended"))
    registry.apply(spec(memory_limit_mb=102))
    assert states(registry.failed()) == [(2, FAILED, 102), (1, SERVING, 101)]
    wait_until(lambda: host.names()["roots"] == ["hello/1"])
    host.calls.clear()
    registry.roll_back()
    assert registry.deployed(revision=1).revision == 1
    assert host.calls == []


def test_a_deploy_is_given_up_for_a_rollback(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A snapshot that takes minutes is not waited for, and nothing of it is left."""
    deploy(registry, host, spec, 101, 102)
    host.holds.clear()
    registry.apply(spec(memory_limit_mb=103))
    wait_until(lambda: host.busy)
    registry.roll_back(revision=1)
    serves(registry, host, 1)
    wait_until(lambda: host.names()["roots"] == ["hello/1", "hello/2"])


def test_a_damaged_snapshot_is_made_anew_visibly(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """From the files that were kept; one that is damaged again at once fails the rollback."""
    deploy(registry, host, spec, 101, 102)
    damaged = DataLoss("SNAPSHOT_CORRUPT", "pages-1.img")
    host.faults["CreateInstance"].append(damaged)
    with registry.watch() as watch:
        registry.roll_back()
        serves(registry, host, 1)
        steps = [event.progress.step for event in watch.of("PROGRESS")]
    assert "create-golden" in steps
    assert host.calls.count("CreateSnapshot") == 3
    assert host.calls.count("DeleteRoot") == 0
    registry.roll_back()
    serves(registry, host, 2)
    host.faults["CreateInstance"].append(damaged)
    host.faults["ArmInstance"].append(damaged)  # of the one that was made anew
    registry.roll_back()
    assert registry.failed().deploy_error.reason == "SNAPSHOT_CORRUPT"
    assert registry.get().serving_revision == 2


def test_a_lost_snapshot_is_made_anew(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """After a reboot memory is empty: the files are kept, and the program is started from them."""
    deploy(registry, host, spec, 101, 102)
    with host.lock:
        del host.snapshots["hello-r1"]
    registry.roll_back()
    serves(registry, host, 1)
    assert host.calls.count("CreateSnapshot") == 3
    assert host.names()["roots"] == ["hello/1", "hello/2"]


def test_the_replaced_one_drains(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """A new deploy does not wait for what answers still; and what drains can serve again."""
    deploy(registry, host, spec, 101, 102)
    host.wake("hello-r2-0", instance_pb2.WAKE_CAUSE_PACKET, 1)
    host.faults["EvictInstance"] += [FailedPrecondition("REQUEST_IN_FLIGHT", "one")] * 1000
    registry.roll_back()
    registry.deployed(revision=1)
    wait_until(lambda: "EvictInstance" in host.calls)
    registry.apply(spec(memory_limit_mb=103))
    registry.deployed(revision=3)
    assert "hello-r2-0" in host.instances
    registry.roll_back(revision=2)
    registry.deployed(revision=2)
    host.faults["EvictInstance"].clear()
    function = serves(registry, host, 2)
    assert [each.revision for each in function.revisions] == [3, 2, 1]
    assert host.instances["hello-r2-0"].wakes == 1


def test_what_is_not_kept_is_refused(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """With the revisions that are."""
    deploy(registry, host, spec, 101)
    for revision in (0, 7):
        with pytest.raises(NotFound) as raised:
            registry.roll_back(revision=revision)
        assert raised.value.reason == "REVISION_NOT_FOUND"
        assert raised.value.metadata["revision"] == str(revision)
        assert raised.value.metadata["kept"] == ""
    deploy(registry, host, spec, 102, 103)
    with pytest.raises(NotFound) as raised:
        registry.roll_back(revision=9)
    assert raised.value.metadata["kept"] == "2,1"
    with pytest.raises(InvalidArgument):
        registry.roll_back(revision=-1)
    with pytest.raises(NotFound) as raised:
        registry.roll_back("nobody")
    assert raised.value.reason == "FUNCTION_NOT_FOUND"


def test_a_rollback_is_guarded(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """By an etag, by a request id, against a taken port, and while the function goes."""
    deploy(registry, host, spec, 101)
    registry.apply(spec(trigger_port=9090))
    serves(registry, host, 2)
    with pytest.raises(Aborted) as raised:
        registry.roll_back(etag="1")
    assert raised.value.reason == "ETAG_MISMATCH"
    registry.apply(spec("other"))
    registry.deployed("other")
    with pytest.raises(FailedPrecondition) as taken:
        registry.roll_back()
    assert taken.value.reason == "PORT_IN_USE"
    registry.delete("other")
    registry.gone("other")
    etag = registry.get().etag
    first = registry.roll_back(etag=etag, request_id="once")
    serves(registry, host, 1)
    assert registry.roll_back(etag=etag, request_id="once") == first
    host.faults["DeleteRoute"] += [Unavailable("BUSY", "x")] * 6
    registry.delete()
    with pytest.raises(Aborted) as busy:
        registry.roll_back()
    assert busy.value.reason == "OPERATION_IN_PROGRESS"
