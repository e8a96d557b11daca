# SPDX-License-Identifier: Apache-2.0
"""Snapshots that the host can't use any more: made anew, visibly."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import function_pb2
from aetherless_common.errors import FailedPrecondition
from framework.registry_client import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.errors import AetherlessError
    from framework.fake_host import FakeHost
    from framework.registry_client import RegistryClient

    Spec = Callable[..., function_pb2.FunctionSpec]


@pytest.mark.parametrize("reason", ["SNAPSHOT_INCOMPATIBLE", "SNAPSHOT_STALE"])
def test_a_snapshot_of_another_host_is_made_anew(
    registry: RegistryClient, host: FakeHost, spec: Spec, reason: str
) -> None:
    """That is a deploy that everyone can see, of the same revision, as often as it happens.

    One that is refused again before it has served fails the function.
    """
    registry.apply(spec())
    registry.deployed()
    error = FailedPrecondition(reason, "the host changed")
    watch = registry.watch()
    for made in (2, 3):
        host.faults["CreateInstance"].append(error)
        host.end("hello-r1-0")
        wait_until(lambda made=made: host.calls.count("CreateSnapshot") == made)  # type: ignore[misc]
        registry.deployed()
        wait_until(lambda: host.names()["routes"] == ["8080 endpoints/hello-r1-0"])
        assert host.names()["snapshots"] == ["hello-r1"]
    assert host.calls.count("TryInstance") == 3
    told = [event.progress for event in watch.of("PROGRESS")]
    assert [p.detail for p in told if p.state == function_pb2.PROGRESS_STATE_FAILED] == [
        "the host changed"
    ] * 2
    events = [each for each in registry.events() if each.reason == "SNAPSHOT_REMADE"]
    assert [dict(each.metadata)["errorReason"] for each in events] == [reason] * 2
    host.faults["CreateInstance"] += [error]
    host.before = lambda rpc: _refuse_again(host, rpc, error)
    host.end("hello-r1-0")
    assert registry.failed().deploy_error.reason == reason


def _refuse_again(host: FakeHost, rpc: str, error: AetherlessError) -> None:
    """Refuse the sandbox of a snapshot that was made just now."""
    if rpc == "TryInstance":
        host.faults["TryInstance"].append(error)
