# SPDX-License-Identifier: Apache-2.0
"""The registry's process: it begins on what it finds, and leaves what it should."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import Internal
from aetherless_common.server import serving
from aetherless_registry.names import (
    golden_id,
    instance_id,
    sandbox_owner,
    snapshot_id,
    snapshot_owner,
)
from aetherless_registry.service import RegistryService, open_store
from framework.fake_host import RUNNING
from framework.registry_client import RegistryClient, wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.settings import Settings
    from framework.fake_host import FakeHost
    from framework.fake_services import FakeServices

    Spec = Callable[..., function_pb2.FunctionSpec]


def run(settings: Settings, *arguments: str) -> int:
    """Run the registry's program to its end, and return its exit status."""
    environment = {
        **os.environ,
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-m", "aetherless_registry", *arguments]
    return subprocess.run(command, env=environment, check=False, timeout=60).returncode


def deploy(settings: Settings, spec: Spec) -> None:
    """Deploy hello by a registry that then ends."""
    service = RegistryService(settings)
    service.start()
    with serving(settings, "registry", service):
        client = RegistryClient(settings)
        client.apply(spec())
        client.deployed()
        client.close()


def test_cleanup_brings_nothing_back(
    settings: Settings, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """After it, a registry on the old file knows no function, and counts revisions on."""
    assert services.stacks
    deploy(settings, spec)
    before = open_store(settings.registry_path)
    revision = before.revision()
    before.close()
    assert run(settings, "--cleanup") == 0
    assert run(settings, "--cleanup") == 0
    assert sorted(path.name for path in settings.runtime_dir.iterdir()) == [
        "ipc.pid",
        "ipc.sock",
        "netplane.pid",
        "netplane.sock",
        "snapshotter.pid",
        "snapshotter.sock",
    ]
    store = open_store(settings.registry_path)
    assert store.list() == ([], revision)
    store.close()
    assert settings.registry_path.exists()


def test_purge_removes_the_file(settings: Settings, services: FakeServices, spec: Spec) -> None:
    """Nothing of the registry is left in the state folder."""
    assert services.stacks
    deploy(settings, spec)
    assert run(settings, "--cleanup", "--purge") == 0
    assert list(settings.state_dir.iterdir()) == []


def test_cleanup_without_a_store(settings: Settings) -> None:
    """Where nothing was, nothing is made."""
    assert run(settings, "--cleanup") == 0
    assert list(settings.state_dir.iterdir()) == []


def test_a_damaged_store_is_refused(settings: Settings) -> None:
    """It is not overwritten, and the error names it."""
    settings.registry_path.write_bytes(b"not a database" * 1000)
    with pytest.raises(Internal) as raised:
        RegistryService(settings).start()
    assert raised.value.metadata["path"] == str(settings.registry_path)
    assert settings.registry_path.read_bytes().startswith(b"not a database")
    assert run(settings) == Internal.exit_status


def test_a_lost_store_takes_nothing_over(
    settings: Settings, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """What an older registry made can't serve for a function that has the same name by chance."""
    assert services.stacks
    deploy(settings, spec)
    old = host.instances["hello-r1-0"].netns_path
    by_hand = instance_pb2.Instance(name="instances/by-hand", netns_path="/h", state=RUNNING)
    host.instances["by-hand"] = by_hand
    for path in settings.state_dir.glob("registry.db*"):
        path.unlink()
    deploy(settings, spec)
    assert host.instances["hello-r1-0"].netns_path != old
    assert host.calls.count("CreateSnapshot") == 2
    assert sorted(host.instances) == ["by-hand", "hello-r1-0"]


def test_deployed_means_deployed_now(
    settings: Settings, services: FakeServices, host: FakeHost, spec: Spec
) -> None:
    """After the host lost all but the store and the snapshot, up has something to wait for."""
    assert services.stacks
    deploy(settings, spec)
    for kept in (host.instances, host.endpoints, host.routes):
        kept.clear()
    services.stop("netplane")
    service = RegistryService(settings)
    service.start()
    with serving(settings, "registry", service):
        client = RegistryClient(settings)
        (function,) = client.apply(spec()).functions
        assert function.deploy_state == function_pb2.DEPLOY_STATE_DEPLOYING
        assert function.revision == 1
        services.start("netplane")
        client.deployed()
        assert host.routes[8080].endpoint == "endpoints/hello-r1-0"
        (again,) = client.apply(spec()).functions
        assert again.deploy_state == function_pb2.DEPLOY_STATE_DEPLOYED
        client.close()
    assert host.calls.count("CreateSnapshot") == 1


def test_strangers_go_when_it_starts(
    settings: Settings, services: FakeServices, host: FakeHost
) -> None:
    """What no function explains is not left running."""
    assert services.stacks
    stranger = instance_pb2.Instance(name="instances/g-r2-0", netns_path="/g", state=RUNNING)
    stranger.workload.function_id = "g"
    host.instances["g-r2-0"] = stranger
    service = RegistryService(settings)
    service.start()
    wait_until(lambda: not host.instances)
    service.stop()


@pytest.mark.parametrize("function_id", ["a", "a-r1", "a-r1-0", "x_-golden", "-"])
@pytest.mark.parametrize("revision", [1, 27])
def test_names_are_read_back(function_id: str, revision: int) -> None:
    """Whatever a function is called, its resources lead back to it."""
    for name in (golden_id(function_id, revision), instance_id(function_id, revision)):
        assert sandbox_owner(name) == (function_id, revision)
    assert snapshot_owner(snapshot_id(function_id, revision)) == (function_id, revision)


@pytest.mark.parametrize("name", ["a", "a-r0-0", "a-r1", "a-r01-0", "a-r1-1", "a b-r1-0"])
def test_other_names_are_not_ours(name: str) -> None:
    """What the registry would not have chosen belongs to nobody it knows."""
    assert sandbox_owner(name) is None
