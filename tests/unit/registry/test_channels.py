# SPDX-License-Identifier: Apache-2.0
"""Functions with a channel: who is let in when, where calls go, and what is left."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition
from framework.registry_client import wait_until
from framework.served import NOTHING, serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.registry.v1 import function_pb2
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]

DEPLOY = [
    "CreateChannel",
    "CreateInstance",
    "AttachEndpoint",
    "AdmitInstance",
    "CreateSnapshot",
    "DetachEndpoint",
    "DeleteInstance",
    "CreateInstance",
    "AttachEndpoint",
    "TryInstance",
    "AdmitInstance",
    "ArmInstance",
    "SetRoute",
    "UpdateChannel",
]


def wake(host: FakeHost, name: str = "hello-r1-0") -> None:
    """Have an instance run."""
    host.wake(name, instance_pb2.WAKE_CAUSE_PACKET, 1)


def test_it_is_let_in_before_it_needs_the_channel(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The golden before it is started, the instance before it can be woken; calls go to it last."""
    registry.apply(spec(ipc=True, may_call=["other"]))
    registry.deployed()
    assert host.calls == DEPLOY
    assert host.names() == serving(channel=True)
    channel = host.channels["hello"]
    assert (channel.function_id, list(channel.may_call)) == ("hello", ["other"])
    assert channel.timeout.ToMilliseconds() == 2000
    assert host.instances["hello-r1-0"].workload.ipc


def test_without_a_port_nothing_is_routed(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It is called through its channel alone; no warm-up is asked where nothing listens."""
    portless = spec(ipc=True)
    portless.ClearField("trigger_port")
    portless.ClearField("warmup_kind")
    registry.apply(portless)
    registry.deployed()
    assert host.calls == [each for each in DEPLOY if each != "SetRoute"]
    assert host.names() == {**serving(channel=True), "routes": []}
    workload = host.instances["hello-r1-0"].workload
    assert workload.warmup.kind == instance_pb2.WARMUP_KIND_NONE
    told = {each.reason: each for each in registry.events()}
    assert "port" not in told["DEPLOYED"].metadata
    assert "serves by its channel" in told["DEPLOYED"].message


def test_calls_go_to_the_new_revision(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """The old one is asked to answer what it has, and goes; so does a rollback."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    wake(host)
    registry.apply(spec(ipc=True, memory_limit_mb=256, may_call=["other"]))
    registry.deployed(revision=2)
    settled(host, serving(revision=2, kept=[1], channel=True))
    assert list(host.channels["hello"].may_call) == ["other"]
    before_its_end = host.calls.index("DetachInstance")
    assert host.calls[before_its_end + 1] == "EvictInstance"
    registry.roll_back()
    registry.deployed(revision=1)
    settled(host, serving(kept=[2], channel=True))
    assert list(host.channels["hello"].may_call) == []


def test_the_order_of_callees_means_nothing(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The ipc service keeps each once, by name: that is what is declared, and nothing is to do."""
    registry.apply(spec(ipc=True, may_call=["other", "another", "other"]))
    registry.deployed()
    assert host.calls == DEPLOY
    registry.apply(spec(ipc=True, may_call=["other", "a"]))
    registry.deployed(revision=2)
    assert list(host.channels["hello"].may_call) == ["a", "other"]
    settled(host, serving(revision=2, kept=[1], channel=True))


def test_calls_under_way_are_waited_for(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A replaced instance stays as long as it has calls to answer."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    wake(host)
    host.in_call.add("hello-r1-0")
    registry.apply(spec(ipc=True, memory_limit_mb=256))
    registry.deployed(revision=2)
    wait_until(lambda: host.calls.count("DetachInstance") > 2)
    assert "hello-r1-0" in host.instances
    host.in_call.clear()
    settled(host, serving(revision=2, kept=[1], channel=True))


@pytest.mark.parametrize("channel_too", [True, False])
def test_a_function_goes_with_its_channel(
    registry: RegistryClient, host: FakeHost, spec: Spec, *, channel_too: bool
) -> None:
    """Deleted, or declared without one: nothing of the channel is left."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    if channel_too:
        registry.apply(spec())
        registry.deployed(revision=2)
        settled(host, serving(revision=2, kept=[1]))
    registry.delete()
    registry.gone()
    assert host.names() == NOTHING


def test_a_failed_deploy_leaves_no_channel(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The first deploy failed, so there is nothing to call."""
    host.faults["ArmInstance"].append(FailedPrecondition("SNAPSHOT_CORRUPT", "broken"))
    registry.apply(spec(ipc=True))
    registry.failed()
    settled(host, NOTHING)


def test_an_eviction_ends_the_attachment_first(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """It is let in again afterwards, also when it was refused; calls under way refuse it."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    wake(host)
    host.calls.clear()
    registry.evict()
    assert host.calls[:3] == ["DetachInstance", "EvictInstance", "AdmitInstance"]
    # Its events may be seen before the last of these: it is let in twice then, which is once.
    assert set(host.calls[3:]) <= {"AdmitInstance"}
    wake(host)
    host.in_use.add("hello-r1-0")
    with pytest.raises(FailedPrecondition) as refused:
        registry.evict()
    assert refused.value.reason == "REQUEST_IN_FLIGHT"
    assert host.names() == serving(channel=True)
    host.in_call.add("hello-r1-0")
    with pytest.raises(FailedPrecondition) as refused:
        registry.evict()
    assert refused.value.reason == "CALLS_IN_FLIGHT"
    assert host.names() == serving(channel=True)


def test_a_lost_channel_is_made_again(
    registry: RegistryClient, host: FakeHost, spec: Spec, services: FakeServices
) -> None:
    """The ipc service came back without it; when all is looked at again it is what it was."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    host.channels.clear()
    services.stop("snapshotter")
    services.start("snapshotter")
    settled(host, serving(channel=True))


def test_who_was_shut_out_by_somebody_who_died_is_let_in(
    registry: RegistryClient, host: FakeHost, spec: Spec, services: FakeServices
) -> None:
    """An eviction dismisses the instance first; when that is all that was done, it is undone."""
    registry.apply(spec(ipc=True))
    registry.deployed()
    host.dismiss("hello", "instances/hello-r1-0")
    services.stop("snapshotter")
    services.start("snapshotter")
    settled(host, serving(channel=True))


def test_without_the_ipc_service_others_are_deployed(
    registry: RegistryClient, host: FakeHost, spec: Spec, services: FakeServices
) -> None:
    """Only functions with a channel wait for it."""
    services.stop("ipc")
    registry.apply(spec(), spec("called", ipc=True, trigger_port=9000))
    registry.deployed()
    assert "called-r1-golden" not in host.instances
    services.start("ipc")
    registry.deployed("called")


def test_a_check_has_a_channel_of_its_own(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """What is checked can serve its channel; nothing is left of that."""
    told = list(registry.check(spec(ipc=True)))
    steps = [each.progress.step for each in told if not each.progress.phase]
    assert {"create-channel", "admit-golden"} <= set(steps)
    assert told[-1].HasField("report")
    settled(host, NOTHING)
