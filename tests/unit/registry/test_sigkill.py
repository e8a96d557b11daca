# SPDX-License-Identifier: Apache-2.0
"""A real registry process is killed with SIGKILL around each step, and its successor finishes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aetherless_common.errors import FailedPrecondition, Unavailable
from framework.registry_client import RegistryClient, wait_until
from framework.served import NOTHING, serving, settled

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless.registry.v1 import function_pb2
    from aetherless_common.settings import Settings
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices

    Spec = Callable[..., function_pb2.FunctionSpec]

# The RPCs of a first deploy, of its deletion, of an undone deploy, and of a change, in their order.
DEPLOY = [
    "CreateInstance",
    "AttachEndpoint",
    "CreateSnapshot",
    "DetachEndpoint",
    "DeleteInstance",
    "CreateInstance",
    "AttachEndpoint",
    "TryInstance",
    "ArmInstance",
    "SetRoute",
]
DELETE = ["DeleteRoute", "DetachEndpoint", "DeleteInstance", "DeleteSnapshot", "DeleteRoot"]
UNDO = ["DetachEndpoint", "DeleteInstance", "DeleteSnapshot", "DeleteRoot"]
CHANGE = [*DEPLOY, "DetachEndpoint", "DeleteInstance"]
ROLLBACK = [
    "CreateInstance",
    "AttachEndpoint",
    "ArmInstance",
    "SetRoute",
    "DetachEndpoint",
    "DeleteInstance",
]
CHECK = [
    "CreateInstance",
    "AttachEndpoint",
    "CreateSnapshot",
    "DetachEndpoint",
    "DeleteInstance",
    "CreateInstance",
    "AttachEndpoint",
    "TryInstance",
    "DetachEndpoint",
    "DeleteInstance",
    "DeleteSnapshot",
    "DeleteRoot",
]
CALLED = [
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
STOP_S = 20.0


class Processes:
    """Registry processes, one after the other, and the moment the living one is killed at.

    Args:
        settings: the orchestrator that they belong to.
        host: its fake host, whose calls are counted.
    """

    def __init__(self, settings: Settings, host: FakeHost) -> None:
        self.settings = settings
        self.host = host
        self.living: subprocess.Popen[bytes] | None = None
        self.killed = 0
        self.seen = 0
        self.deadly: tuple[str, int] | None = None
        host.before = lambda _: self.moment("before")
        host.after = lambda _: self.moment("after")

    def start(self) -> None:
        """Start a registry."""
        environment = {
            **os.environ,
            "AETHER_RUNTIME_DIR": str(self.settings.runtime_dir),
            "AETHER_STATE_DIR": str(self.settings.state_dir),
        }
        command = [sys.executable, "-m", "aetherless_registry"]
        self.living = subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL)

    def kill_at(self, moment: str, index: int) -> None:
        """Kill the registry before or after the effect of the call of this index from now on."""
        self.seen = 0
        self.deadly = (moment, index)

    def moment(self, which: str) -> None:
        """Kill the registry when this is the deadly moment; the call goes on without it."""
        with self.host.lock:
            index = self.seen
            self.seen += which == "after"
            if self.deadly != (which, index):
                return
            self.deadly = None
        self.kill()

    def kill(self) -> None:
        """Kill the living registry."""
        process = self.living
        assert process is not None
        # SAFETY: a child of ours that was not reaped yet: its pid is above 1 and is not reused.
        process.send_signal(signal.SIGKILL)
        process.wait(STOP_S)
        self.killed += 1

    def restart_after_death(self) -> None:
        """Wait until the registry was killed, and start the next."""
        wait_until(lambda: self.killed, "the registry's death")
        self.start()

    def stop(self) -> None:
        """End the living registry in peace."""
        process = self.living
        if process is not None and process.poll() is None:
            process.terminate()
            process.wait(STOP_S)


@pytest.fixture
def processes(settings: Settings, host: FakeHost, services: FakeServices) -> Iterator[Processes]:
    """Give a registry process beside the fake services."""
    assert services.stacks
    made = Processes(settings, host)
    made.start()
    yield made
    made.deadly = None
    made.stop()


@pytest.fixture
def client(settings: Settings, processes: Processes) -> Iterator[RegistryClient]:
    """Give a client that finds whichever registry lives."""
    assert processes.living
    made = RegistryClient(settings)
    yield made
    made.close()


def moments(calls: list[str]) -> list[pytest.ParameterSet]:
    """Return every moment around every call."""
    return [
        pytest.param(moment, index, id=f"{index + 1}-{moment}-{call}")
        for index, call in enumerate(calls)
        for moment in ("before", "after")
    ]


@pytest.mark.parametrize(("moment", "index"), moments(DEPLOY))
def test_a_deploy_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """Whichever call it died around, the function is deployed, once, and nothing is left over."""
    processes.kill_at(moment, index)
    client.apply(spec())
    processes.restart_after_death()
    client.deployed()
    assert host.names() == serving()
    assert processes.killed == 1


@pytest.mark.parametrize(("moment", "index"), moments(CALLED))
def test_a_deploy_with_a_channel_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """Whichever call it died around, calls go to the instance that serves, and to no other."""
    processes.kill_at(moment, index)
    client.apply(spec(ipc=True))
    processes.restart_after_death()
    client.deployed()
    settled(host, serving(channel=True))
    assert processes.killed == 1


@pytest.mark.parametrize(("moment", "index"), moments(DELETE))
def test_a_delete_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """Whichever call it died around, the function goes, with all it had."""
    client.apply(spec())
    client.deployed()
    processes.kill_at(moment, index)
    client.delete()
    processes.restart_after_death()
    client.gone()
    assert host.names() == NOTHING
    assert processes.killed == 1


@pytest.mark.parametrize(("moment", "index"), moments(UNDO))
def test_an_undo_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """A failed deploy stays failed, for the first reason, and is undone."""
    refusal = FailedPrecondition("PORT_IN_USE", "taken", {"port": 8080})

    def fail_then_die(rpc: str) -> None:
        if rpc == "SetRoute":
            host.faults[rpc].append(refusal)
            processes.kill_at(moment, index)
            host.before = lambda _: processes.moment("before")

    host.before = fail_then_die
    client.apply(spec())
    processes.restart_after_death()
    function = client.failed()
    wait_until(lambda: host.names() == NOTHING)
    assert (function.deploy_step, function.deploy_error.reason) == ("set-route", "PORT_IN_USE")
    assert processes.killed == 1


@pytest.mark.parametrize(("moment", "index"), moments(CHANGE))
def test_a_change_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """Until the new revision is routed, the old one is; then the old one goes."""
    client.apply(spec())
    client.deployed()
    processes.kill_at(moment, index)
    client.apply(spec(memory_limit_mb=256))
    wait_until(lambda: processes.killed)
    route = host.routes[8080].endpoint.removeprefix("endpoints/")
    assert host.instances[route].state
    processes.start()
    client.deployed(revision=2)
    wait_until(lambda: host.names() == serving(revision=2, kept=[1]))
    assert processes.killed == 1


@pytest.mark.parametrize(("moment", "index"), moments(ROLLBACK))
def test_a_rollback_is_finished(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """It ends at the earlier revision, from its kept snapshot; the port leads somewhere always."""
    client.apply(spec())
    client.deployed()
    client.apply(spec(memory_limit_mb=256))
    client.deployed(revision=2)
    wait_until(lambda: host.names() == serving(revision=2, kept=[1]))
    processes.kill_at(moment, index)
    client.roll_back()
    wait_until(lambda: processes.killed)
    assert host.routes[8080].endpoint.removeprefix("endpoints/") in host.instances
    processes.start()
    client.deployed(revision=1)
    wait_until(lambda: host.names() == serving(kept=[2]))
    assert host.calls.count("CreateSnapshot") == 2
    assert processes.killed == 1


def test_killed_while_serving(
    processes: Processes, client: RegistryClient, host: FakeHost, spec: Spec
) -> None:
    """A deployed function is not touched by the death of its registry, nor by the next one."""
    client.apply(spec())
    before = client.deployed()
    processes.kill()
    host.calls.clear()
    processes.start()
    after = wait_until(lambda: client.get() if client.get().instances else None)
    assert (after.revision, after.spec) == (before.revision, before.spec)
    assert after.create_time == before.create_time
    assert host.calls == []


@pytest.mark.parametrize(("moment", "index"), moments(CHECK))
def test_nothing_is_left_of_a_check(
    processes: Processes,
    client: RegistryClient,
    host: FakeHost,
    spec: Spec,
    moment: str,
    index: int,
) -> None:
    """Whichever call it died around, its caller is told, and the next registry removes it all."""
    processes.kill_at(moment, index)
    with pytest.raises(Unavailable):
        list(client.check(spec()))
    processes.restart_after_death()
    settled(host, NOTHING)
    assert processes.killed == 1
