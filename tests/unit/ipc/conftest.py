# SPDX-License-Identifier: Apache-2.0
"""An ipc service of the test's own, and peers in control groups."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless.ipc.v1 import ipc_service_pb2_grpc
from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_common.channels import connect, is_serving
from aetherless_common.server import serving
from aetherless_common.settings import Settings
from framework.processes import wait_until

from .sleeping import Snapshotter

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

PROGRAM = Path(__file__).with_name("peer_program.py")
WAIT_S = 20.0


class PeerProcess:
    """A process that attaches when told to."""

    def __init__(self, child: subprocess.Popen[str]) -> None:
        self.child = child

    def ask(self, command: str, argument: object = "") -> dict[str, Any]:
        """Have one command done; return its answer."""
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        self.child.stdin.write(f"{command} {argument}\n")
        self.child.stdin.flush()
        return dict(json.loads(self.child.stdout.readline()))


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Return the settings of an orchestrator of this test's own."""
    places = {
        "AETHER_RUNTIME_DIR": str(tmp_path / "run"),
        "AETHER_STATE_DIR": str(tmp_path / "lib"),
    }
    loaded = Settings.load(places)
    loaded.make_folders()
    return loaded


@contextmanager
def in_cgroup(path: Path, program: Path = PROGRAM, *arguments: str) -> Iterator[PeerProcess]:
    """Run a peer in a v2 control group, made with its parents; remove it all at the end."""
    mount = cgroup_v2_mount()
    path.mkdir(parents=True, exist_ok=True)
    command = [sys.executable, str(program), *arguments]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    try:
        with subprocess.Popen(command, text=True, **pipes) as child:  # type: ignore[call-overload]
            try:
                (path / "cgroup.procs").write_text(str(child.pid))
                yield PeerProcess(child)
            finally:
                # SAFETY: our own child, by its handle.
                child.kill()
                child.wait(WAIT_S)
    finally:
        remove_groups(path, mount)


def remove_groups(path: Path, mount: Path) -> None:
    """Remove a control group and those parents that are empty; another peer may be in it."""
    for group in (path, *path.parents):
        if not group.exists():
            continue
        occupied = (group / "cgroup.procs").read_text()
        if group == mount or occupied or any(entry.is_dir() for entry in group.iterdir()):
            return
        group.rmdir()


@pytest.fixture
def peer(settings: Settings) -> Iterator[Callable[..., PeerProcess]]:
    """Return a maker of peers in an instance's group, or in any group of the orchestrator."""
    with ExitStack() as stack:

        def make(instance: str, owner: str = settings.cgroup_name) -> PeerProcess:
            path = cgroup_v2_mount() / owner / instance
            return stack.enter_context(in_cgroup(path))

        yield make


@pytest.fixture
def starting_peer(settings: Settings) -> Iterator[Callable[..., PeerProcess]]:
    """Return a maker of peers that will serve a side socket, in an instance's group."""
    with ExitStack() as stack:

        def make(path: str, program: str, *arguments: str, instance: str = "f-r1-0") -> PeerProcess:
            group = cgroup_v2_mount() / settings.cgroup_name / instance / "tree"
            where = Path(__file__).with_name(f"{program}_program.py")
            made = stack.enter_context(in_cgroup(group, where, *arguments))
            assert made.child.stdin is not None
            made.child.stdin.write(f"{path}\n")
            made.child.stdin.flush()
            return made

        yield make


@pytest.fixture
def serving_peer(
    starting_peer: Callable[..., PeerProcess], stub: ipc_service_pb2_grpc.IpcServiceStub
) -> Callable[..., PeerProcess]:
    """Return a maker of peers that serve a side socket; they are attached when it returns."""

    def attached(path: str) -> bool:
        channels = stub.ListChannels(pb.ListChannelsRequest()).channels
        admissions = [each for channel in channels for each in channel.admissions]
        return any(each.attached and each.socket_path == path for each in admissions)

    def make(path: str, *arguments: str, **named: str) -> PeerProcess:
        made = starting_peer(path, *arguments, **named)
        wait_until(lambda: attached(path), "the peer is attached")
        return made

    return make


@pytest.fixture
def snapshotter(settings: Settings, starting_peer: Any, tmp_path: Path) -> Iterator[Snapshotter]:
    """Serve a snapshotter that wakes the instance of the channel."""
    path = str(tmp_path / "0" / "channel.sock")
    made = Snapshotter(  # type: ignore[abstract]  # it wakes and is touched, no more
        lambda: starting_peer(path, "handler", "2")
    )
    with serving(settings, "snapshotter", made):
        yield made


@contextmanager
def service_process(settings: Settings) -> Iterator[subprocess.Popen[bytes]]:
    """Run the real service as a process, until it serves."""
    environment = os.environ | {
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-m", "aetherless_ipc"]
    with subprocess.Popen(command, env=environment) as child:
        try:
            assert is_serving(settings, "ipc", WAIT_S)
            yield child
        finally:
            # SAFETY: our own child, by its handle.
            child.kill()
            child.wait(WAIT_S)


@pytest.fixture
def run_service(settings: Settings) -> Callable[[], Any]:
    """Return a maker of the service's process, to be used in a with-statement."""
    return lambda: service_process(settings)


@pytest.fixture
def stub(settings: Settings) -> Iterator[ipc_service_pb2_grpc.IpcServiceStub]:
    """Return a stub; the service may come and go."""
    with connect(settings, "ipc") as channel:
        yield ipc_service_pb2_grpc.IpcServiceStub(channel)
