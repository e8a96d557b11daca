# SPDX-License-Identifier: Apache-2.0
"""Waiting for what a replaced instance still answers, and for how long."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_registry.drains import Drains
from framework.fake_host import RUNNING
from framework.served import serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.registry.v1 import function_pb2
    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]


def test_a_wait_has_a_limit() -> None:
    """It counts from its beginning, and anew once the instance was gone or served again."""
    now = 100.0
    drains = Drains(lambda: now)
    assert not drains.overdue("a", 5.0)
    now = 104.0
    assert not drains.overdue("a", 5.0)
    now = 105.0
    assert drains.overdue("a", 5.0)
    drains.give_up("a")
    assert drains.given_up == {"a"}
    drains.forget("a")
    assert drains.given_up == set()
    assert not drains.overdue("a", 5.0)


def test_an_old_instance_is_drained(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """A revision that answers a request is waited for, but not longer than a request may take."""
    registry.apply(spec())
    registry.deployed()
    host.wake("hello-r1-0", instance_pb2.WAKE_CAUSE_PACKET, 1)
    in_flight = FailedPrecondition("REQUEST_IN_FLIGHT", "one", {"instance": "hello-r1-0"})
    host.faults["EvictInstance"] += [in_flight] * 3
    registry.apply(spec(memory_limit_mb=256))
    registry.deployed(revision=2)
    settled(host, serving(revision=2, kept=[1]))
    assert host.calls.count("EvictInstance") == 4


def test_an_instance_that_never_drains_gets_a_last_call(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """After the time that a request may take, it takes no more and is ended."""
    registry.apply(spec())
    registry.deployed()
    host.wake("hello-r1-0", instance_pb2.WAKE_CAUSE_PACKET, 1)
    host.in_use.add("hello-r1-0")
    registry.apply(spec(memory_limit_mb=256))
    registry.deployed(revision=2)
    assert host.instances["hello-r1-0"].state == RUNNING
    settled(host, serving(revision=2, kept=[1]))
    assert host.last_calls == ["hello-r1-0"]


def test_an_instance_that_can_not_be_ended_goes_all_the_same(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Nothing that a sandbox refuses keeps it for ever."""
    registry.apply(spec())
    registry.deployed()
    host.wake("hello-r1-0", instance_pb2.WAKE_CAUSE_PACKET, 1)
    host.faults["EvictInstance"] += [FailedPrecondition("SANDBOX_FAILED", "no answer")] * 1000
    registry.apply(spec(memory_limit_mb=256))
    registry.deployed(revision=2)
    settled(host, serving(revision=2, kept=[1]))
