# SPDX-License-Identifier: Apache-2.0
"""An ipc service of a measurement's own, and functions that are processes in control groups."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aetherless.ipc.v1 import channel_pb2, ipc_service_pb2_grpc
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_common.channels import connect, is_serving
from aetherless_common.settings import Settings
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator

PEER = Path(__file__).with_name("peer.py")
WAIT_S = 20.0
RING = 1 << 20


@contextmanager
def process(*command: str, **named: Any) -> Iterator[subprocess.Popen[str]]:
    """Run a process for as long as the block lasts."""
    with subprocess.Popen(command, text=True, stdin=subprocess.PIPE, **named) as child:
        try:
            yield child
        finally:
            # SAFETY: our own child, by its handle.
            child.kill()
            child.wait(WAIT_S)


class Service:
    """The service with its folders; ``stub`` is for calling it. A context manager."""

    def __enter__(self) -> Self:
        with ExitStack() as stack:
            self.home = Path(tempfile.mkdtemp(prefix="aether-b", dir="/run"))
            stack.callback(shutil.rmtree, self.home, ignore_errors=True)
            places = {
                "AETHER_RUNTIME_DIR": str(self.home / "r"),
                "AETHER_STATE_DIR": str(self.home / "s"),
            }
            self.settings = Settings.load(places)
            self.settings.make_folders()
            stack.callback(self._remove_groups)
            log = stack.enter_context((self.home / "log").open("w"))
            command = (sys.executable, "-m", "aetherless_ipc")
            stack.enter_context(process(*command, env=os.environ | places, stderr=log))
            if not is_serving(self.settings, "ipc", WAIT_S):
                raise RuntimeError("the ipc service does not serve")
            self.channel = stack.enter_context(connect(self.settings, "ipc"))
            self.stub = ipc_service_pb2_grpc.IpcServiceStub(self.channel)
            self._stack = stack.pop_all()
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def function(self, name: str, way: str, argument: str) -> subprocess.Popen[str]:
        """Start a peer as a function with a channel; it lives as long as the service."""
        path = self._admit(name)
        group = self._group / name / "tree"
        group.mkdir(parents=True, exist_ok=True)
        command = (sys.executable, str(PEER), way, argument)
        child = self._stack.enter_context(process(*command, stdout=subprocess.PIPE))
        (group / "cgroup.procs").write_text(str(child.pid))
        if child.stdin is not None:
            child.stdin.write(f"{path}\n")
            child.stdin.flush()
        return child

    def wait_attached(self, name: str) -> None:
        """Return when a function's peer is attached."""
        request = pb.GetChannelRequest(name=f"channels/{name}")
        wait_until(lambda: self.stub.GetChannel(request).channel.attached, f"{name} is attached")

    def _admit(self, name: str) -> str:
        channel = channel_pb2.Channel(function_id=name, buffer_size_bytes=RING)
        self.stub.CreateChannel(pb.CreateChannelRequest(channel_id=name, channel=channel))
        changed = channel_pb2.Channel(name=f"channels/{name}", instance=f"instances/{name}")
        self.stub.UpdateChannel(pb.UpdateChannelRequest(channel=changed))
        folder = self.home / name
        folder.mkdir()
        request = pb.AdmitInstanceRequest(
            channel=changed.name, instance=changed.instance, folder=str(folder)
        )
        return str(self.stub.AdmitInstance(request).channel.socket_path)

    @property
    def _group(self) -> Path:
        return cgroup_v2_mount() / self.settings.cgroup_name

    def _remove_groups(self) -> None:
        for group in sorted(self._group.rglob("*/"), reverse=True):
            group.rmdir()
        if self._group.exists():
            self._group.rmdir()
