# SPDX-License-Identifier: Apache-2.0
"""What a real registry writes down of instances and services, each thing once."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import event_pb2, function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_common.server import serving
from aetherless_registry.service import RegistryService
from framework.registry_client import RegistryClient, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.settings import Settings
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices

    Spec = Callable[..., function_pb2.FunctionSpec]

NAME = "hello-r1-0"
PACKET = instance_pb2.WAKE_CAUSE_PACKET


@contextmanager
def running(settings: Settings) -> Iterator[RegistryClient]:
    """Give a client of a registry that runs in this block."""
    service = RegistryService(settings)
    service.start()
    with serving(settings, "registry", service):
        client = RegistryClient(settings)
        yield client
        client.close()


def deploy(client: RegistryClient, spec: Spec) -> None:
    """Deploy hello and wait until the registry listens."""
    client.apply(spec())
    client.deployed()
    wait_until(lambda: client.get().state == function_pb2.FUNCTION_STATE_WARM_SNAPSHOT)


def told(client: RegistryClient, reason: str, count: int = 1) -> event_pb2.Event:
    """Wait for an event, and return the newest of its kind; there are no more of it."""
    wait_until(lambda: client.reasons().count(reason) >= count, reason)
    assert client.reasons().count(reason) == count
    return next(each for each in client.events(newest_first=True) if each.reason == reason)


def test_wakes_and_evictions_are_recorded(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """By command and by packet, good and bad."""
    deploy(registry, spec)
    registry.wake()
    assert told(registry, "WOKEN").metadata["cause"] == "command"
    registry.evict()
    assert told(registry, "EVICTED").metadata == {"instance": NAME, "cause": "command"}
    host.fail_wake(NAME, "RESTORE_LATENCY_VIOLATION", "limit 15 ms, took 16.7 ms", time.time_ns())
    late = told(registry, "RESTORE_LATENCY_VIOLATION")
    assert late.severity == event_pb2.EVENT_SEVERITY_WARNING
    assert (late.metadata["limitMs"], late.metadata["tookMs"]) == ("15", "16.700")


def test_the_end_of_a_program_is_recorded(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """By itself, and at its memory limit."""
    deploy(registry, spec)
    for cause, reason in (
        (instance_pb2.TREE_END_CAUSE_EXITED, "HANDLER_EXITED"),
        (instance_pb2.TREE_END_CAUSE_MEMORY_LIMIT, "MEMORY_LIMIT_EXCEEDED"),
    ):
        registry.wake()
        host.evict(host.instances[NAME], cause)
        assert told(registry, reason).function == "functions/hello"


def test_an_instance_that_dies_is_lost_and_one_that_is_deleted_is_not(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The repair is an event as well."""
    deploy(registry, spec)
    host.end(NAME, "its init was killed")
    assert told(registry, "INSTANCE_LOST").metadata["cause"] == "its init was killed"
    assert told(registry, "REPAIRED").revision == 1
    registry.delete()
    told(registry, "DELETED")
    assert registry.reasons().count("INSTANCE_LOST") == 1


def test_a_snapshot_made_anew_says_why(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """In the words of the service that could not use it."""
    deploy(registry, spec)
    error = FailedPrecondition("SNAPSHOT_INCOMPATIBLE", "another kernel", {"what": "kernel"})
    host.faults["CreateInstance"].append(error)
    host.end(NAME)
    remade = told(registry, "SNAPSHOT_REMADE")
    assert remade.message.endswith("another kernel")
    assert remade.metadata["what"] == "kernel"
    told(registry, "REPAIRED")


@pytest.mark.parametrize("service", ["snapshotter", "netplane"])
def test_a_service_that_is_away_is_lost_and_back(
    registry: RegistryClient, services: FakeServices, spec: Spec, service: str
) -> None:
    """Once each; its functions stay as they are."""
    deploy(registry, spec)
    services.stop(service)
    assert told(registry, "SERVICE_LOST").metadata["service"] == service
    services.start(service)
    back = told(registry, "SERVICE_BACK")
    assert back.metadata["service"] == service
    assert back.function == ""
    assert "INSTANCE_LOST" not in registry.reasons()


def test_what_happened_while_the_snapshotter_was_away(
    registry: RegistryClient, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """The newest wake is recorded, with how many are not; an instance that is gone is lost."""
    deploy(registry, spec)
    services.stop("snapshotter")
    told(registry, "SERVICE_LOST")
    for _ in range(3):
        host.wake(NAME, PACKET, time.time_ns())
    services.start("snapshotter")
    assert told(registry, "WOKEN").metadata["unrecorded"] == "2"
    services.stop("snapshotter")
    told(registry, "SERVICE_LOST", 2)
    del host.instances[NAME]
    services.start("snapshotter")
    assert told(registry, "INSTANCE_LOST").metadata["instance"] == NAME


def test_what_happened_while_the_registry_was_away(
    settings: Settings, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """A wake that failed then is recorded when the next one starts, and by no later one again."""
    assert services.stacks
    with running(settings) as first:
        deploy(first, spec)
        host.wake(NAME, PACKET, time.time_ns())
        told(first, "WOKEN")
        host.evict(host.instances[NAME], instance_pb2.TREE_END_CAUSE_IDLE)
        told(first, "EVICTED")
    host.fail_wake(NAME, "RESTORE_FAILED", "flux is low", time.time_ns())
    host.wake(NAME, PACKET, time.time_ns())
    host.evict(host.instances[NAME], instance_pb2.TREE_END_CAUSE_IDLE)
    with running(settings) as second:
        assert told(second, "WOKEN", 2).metadata["unrecorded"] == "1"
        told(second, "EVICTED", 2)
        host.fail_wake(NAME, "RESTORE_FAILED", "flux is low", time.time_ns())
        assert "flux is low" in told(second, "RESTORE_FAILED").message
    with running(settings) as third:
        third.apply(spec("other", trigger_port=8081))
        third.deployed("other")
        assert third.reasons(function="functions/hello").count("RESTORE_FAILED") == 1
        assert third.reasons().count("WOKEN") == third.reasons().count("EVICTED") == 2
        assert "SERVICE_BACK" not in third.reasons()


def test_a_registry_that_was_killed_says_so(settings: Settings, services: FakeServices) -> None:
    """It finds the pid file that an orderly end removes."""
    assert services.stacks
    settings.pid_path("registry").write_text("{}")
    with running(settings) as client:
        back = told(client, "SERVICE_BACK")
    assert back.metadata["service"] == "registry"
    assert back.severity == event_pb2.EVENT_SEVERITY_WARNING
