# SPDX-License-Identifier: Apache-2.0
"""Trial restores in a deploy: what is told of them, and when the deploy fails for them."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.registry.v1 import event_pb2
from aetherless_common.errors import DeadlineExceeded
from framework.fake_host import trial_of
from framework.registry_client import wait_until
from framework.served import serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.registry.v1 import function_pb2
    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]


def near_limit(registry: RegistryClient) -> list[event_pb2.Event]:
    """Return the events that warn of restores near their limit."""
    return [each for each in registry.events() if each.reason == "RESTORE_LATENCY_NEAR_LIMIT"]


def test_a_trial_is_told(registry: RegistryClient, host: FakeHost, spec: Spec) -> None:
    """What restores took is part of the deploy's progress, once for each snapshot."""
    watch = registry.watch()
    registry.apply(spec())
    registry.deployed()
    (told,) = [e.progress for e in watch.of("PROGRESS") if e.progress.phase == "restores"]
    assert (told.step, told.duration.ToMilliseconds()) == ("try-snapshot", 40)
    assert told.detail == (
        "10 restores, median 4.0 ms, longest 4.0 ms, limit 15 ms; first answer after 8.0 ms"
    )
    assert near_limit(registry) == []
    host.end("hello-r1-0")
    wait_until(lambda: host.calls.count("ArmInstance") == 2)
    assert host.calls.count("TryInstance") == 1


def test_restores_near_their_limit_are_warned_of(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """Twice the median above the limit: the deploy goes on, with a warning that says what to do."""
    host.trial = trial_of(milliseconds=8)
    watch = registry.watch()
    registry.apply(spec())
    registry.deployed()
    (told,) = [e.progress for e in watch.of("PROGRESS") if e.progress.phase == "restores"]
    assert "near the limit, 16 ms would leave room" in told.detail
    (event,) = near_limit(registry)
    assert event.severity == event_pb2.EVENT_SEVERITY_WARNING
    assert (event.revision, event.message) == (1, told.detail)
    assert dict(event.metadata) == {
        "limitMs": "15",
        "medianMs": "8.0",
        "maxMs": "8.0",
        "suggestedMs": "16",
    }


def test_a_limit_that_is_not_met_fails_the_deploy(
    registry: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """The old revision goes on; the error's figures reach the function, and nothing is retried."""
    registry.apply(spec())
    registry.deployed()
    figures = {"limitMs": "15", "medianMs": "9.0", "maxMs": "20.0", "suggestedMs": "30"}
    error = DeadlineExceeded("RESTORE_LATENCY_VIOLATION", "too slow", figures)
    host.faults["TryInstance"].append(error)
    registry.apply(spec(memory_limit_mb=256))
    failed = registry.failed()
    assert failed.deploy_step == "try-snapshot"
    assert failed.deploy_error.reason == "RESTORE_LATENCY_VIOLATION"
    assert dict(failed.deploy_error.metadata) == figures
    settled(host, serving())
    assert host.calls.count("TryInstance") == 2
