# SPDX-License-Identifier: Apache-2.0
"""A snapshotter of the test's own in a network namespace of the test's own, and links by hand.

The netplane's part is played by a few ``ip`` commands: the service, the hosts' ends of all links
and the clients live in one namespace, so nothing touches the machine's own network.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import time
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless.snapshotter.v1 import snapshotter_service_pb2_grpc as pb_grpc
from aetherless_common.channels import connect, is_serving
from aetherless_common.settings import Settings
from aetherless_snapshotter import netns

if TYPE_CHECKING:
    from collections.abc import Iterator

INNER_IPV4 = "198.18.255.1"
GATEWAY_IPV4 = "198.18.254.1"
INNER_MAC = "02:ae:00:00:00:02"
HOST_MAC = "02:ae:00:00:00:01"
PORT = 8080
WAIT = 30.0


@dataclass
class World:
    """One orchestrator's snapshotter, driven as the registry would."""

    settings: Settings
    namespace: Path
    process: subprocess.Popen[bytes] | None = None

    # The service

    def start(self) -> None:
        """Start the service and wait until it serves."""
        log = self.settings.state_dir / "service.log"
        with log.open("ab") as output:
            self.process = subprocess.Popen(
                [
                    "nsenter",
                    f"--net={self.namespace}",
                    sys.executable,
                    "-m",
                    "aetherless_snapshotter",
                ],
                env=self.environment(),
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=output,
            )
        assert is_serving(self.settings, "snapshotter", WAIT), log.read_text()

    def stop(self, number: signal.Signals = signal.SIGTERM) -> None:
        """End the service."""
        assert self.process is not None
        self.process.send_signal(number)
        self.process.wait(timeout=WAIT)

    def cleanup(self) -> None:
        """Do what ``down`` does for this service."""
        command = [sys.executable, "-m", "aetherless_snapshotter", "--cleanup"]
        subprocess.run(command, env=self.environment(), check=True, timeout=WAIT)

    def environment(self) -> dict[str, str]:
        """Return the variables that lead the service to this orchestrator's folders."""
        return {
            **os.environ,
            "AETHER_RUNTIME_DIR": str(self.settings.runtime_dir),
            "AETHER_STATE_DIR": str(self.settings.state_dir),
        }

    @contextmanager
    def stub(self) -> Iterator[pb_grpc.SnapshotterServiceStub]:
        """Give a connected client."""
        with connect(self.settings, "snapshotter") as channel:
            yield pb_grpc.SnapshotterServiceStub(channel)

    # A deploy

    def golden(self, workload: instance_pb2.Workload) -> instance_pb2.Instance:
        """Make a golden's sandbox, linked."""
        name = f"{workload.function_id}-r{workload.revision}-golden"
        with self.stub() as stub:
            request = pb.CreateInstanceRequest(
                instance_id=name, workload=workload, role=instance_pb2.INSTANCE_ROLE_GOLDEN
            )
            instance = stub.CreateInstance(request).instance
        self.link("golden", instance.init_pid)
        return instance

    def checkpoint(self, golden: instance_pb2.Instance) -> tuple[list[str], snapshot_pb2.Snapshot]:
        """Make the snapshot and delete the golden; returns the phases done."""
        workload = golden.workload
        done: list[str] = []
        snapshot = snapshot_pb2.Snapshot()
        with self.stub() as stub:
            request = pb.CreateSnapshotRequest(
                snapshot_id=f"{workload.function_id}-r{workload.revision}", instance=golden.name
            )
            for response in stub.CreateSnapshot(request):
                if response.HasField("snapshot"):
                    snapshot = response.snapshot
                elif response.phase.state == snapshot_pb2.PHASE_STATE_DONE:
                    done.append(response.phase.name)
            stub.DeleteInstance(pb.DeleteInstanceRequest(name=golden.name))
        return done, snapshot

    def unarmed(
        self, workload: instance_pb2.Workload, snapshot: snapshot_pb2.Snapshot, number: int = 0
    ) -> instance_pb2.Instance:
        """Make a clone's sandbox, linked."""
        with self.stub() as stub:
            request = pb.CreateInstanceRequest(
                instance_id=f"{workload.function_id}-r{workload.revision}-{number}",
                workload=workload,
                role=instance_pb2.INSTANCE_ROLE_CLONE,
                snapshot=snapshot.name,
            )
            instance = stub.CreateInstance(request).instance
        self.link(f"clone{number}", instance.init_pid)
        return instance

    def arm(self, instance: instance_pb2.Instance, number: int = 0) -> instance_pb2.Instance:
        """Arm a clone that has its link."""
        with self.stub() as stub:
            arming = pb.ArmInstanceRequest(
                name=instance.name, host_link=f"tclone{number}", inner_ipv4=INNER_IPV4
            )
            return stub.ArmInstance(arming).instance

    def clone(
        self, workload: instance_pb2.Workload, snapshot: snapshot_pb2.Snapshot, number: int = 0
    ) -> instance_pb2.Instance:
        """Make a clone's sandbox, linked and armed."""
        return self.arm(self.unarmed(workload, snapshot, number), number)

    def deploy(self, workload: instance_pb2.Workload) -> instance_pb2.Instance:
        """Go the whole way to an armed clone."""
        _, snapshot = self.checkpoint(self.golden(workload))
        return self.clone(workload, snapshot)

    def instance(self, name: str) -> instance_pb2.Instance:
        """Return one instance as the list has it."""
        with self.stub() as stub:
            found = stub.ListInstances(pb.ListInstancesRequest()).instances
        return next(one for one in found if one.name == name)

    def wait_for(self, name: str, state: instance_pb2.InstanceState.ValueType) -> None:
        """Wait until an instance is in a state."""
        until = time.monotonic() + WAIT
        while (found := self.instance(name)).state != state:
            assert time.monotonic() < until, found
            time.sleep(0.02)

    # The network

    def link(self, tag: str, init_pid: int) -> str:
        """Make the link of one sandbox, as the netplane does; returns the host's end."""
        assert init_pid > 1
        name = f"t{tag}"
        self.ip(
            f"link add {name} address {HOST_MAC} type veth"
            f" peer name eth0 address {INNER_MAC} netns {init_pid}",
            f"link set {name} up",
            f"addr add {GATEWAY_IPV4}/32 dev {name}",
            f"neigh replace {INNER_IPV4} lladdr {INNER_MAC} dev {name}",
        )
        inner = Path(f"/proc/{init_pid}/ns/net")
        self.ip(
            "link set lo up",
            "link set eth0 up",
            f"addr add {INNER_IPV4}/32 dev eth0 noprefixroute",
            f"neigh replace {GATEWAY_IPV4} lladdr {HOST_MAC} dev eth0",
            f"route add {GATEWAY_IPV4}/32 dev eth0 scope link",
            f"route add default via {GATEWAY_IPV4} dev eth0",
            namespace=inner,
        )
        return name

    def ip(self, *commands: str, namespace: Path | None = None) -> None:
        """Run ``ip`` commands in a network namespace, by default the host's part."""
        text = "".join(f"{command}\n" for command in commands)
        subprocess.run(
            ["nsenter", f"--net={namespace or self.namespace}", "ip", "-batch", "-"],
            input=text.encode(),
            check=True,
            timeout=WAIT,
        )

    def client(self, link: str = "tclone0") -> socket.socket:
        """Return a client's socket that goes through one link."""
        client = netns.make_socket(self.namespace, socket.AF_INET, socket.SOCK_STREAM)
        client.setsockopt(socket.SOL_SOCKET, socket.SO_BINDTODEVICE, link.encode())
        client.settimeout(WAIT)
        return client

    def get(self, path: str = "/", link: str = "tclone0") -> tuple[int, bytes, int]:
        """Get a page; returns status, body and how often the client sent anything again."""
        with self.client(link) as client:
            client.connect((INNER_IPV4, PORT))
            client.sendall(f"GET {path} HTTP/1.0\r\nHost: f\r\n\r\n".encode())
            received = b""
            while block := client.recv(65536):
                received += block
            info = client.getsockopt(socket.IPPROTO_TCP, socket.TCP_INFO, 104)
        retransmissions = int.from_bytes(info[100:104], sys.byteorder)
        head, _, body = received.partition(b"\r\n\r\n")
        return int(head.split()[1]), body, retransmissions


@contextmanager
def world(folder: Path) -> Iterator[World]:
    """Give a running snapshotter; in the end nothing of it is left."""
    settings = make_settings(folder)
    command = ["unshare", "--net", "sh", "-c", "ip link set lo up && echo up && exec cat"]
    holder = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
    assert holder.stdin is not None
    assert holder.stdout is not None
    try:
        assert holder.stdout.readline() == b"up\n"
        made = World(settings, Path(f"/proc/{holder.pid}/ns/net"))
        try:
            made.start()
            yield made
        finally:
            if made.process is not None and made.process.poll() is None:
                made.stop()
            made.cleanup()
    finally:
        holder.stdin.close()
        holder.stdout.close()
        holder.wait(timeout=WAIT)


def make_settings(folder: Path) -> Settings:
    """Write the settings of an orchestrator that lives in ``folder``."""
    environment = {
        "AETHER_RUNTIME_DIR": str(folder / "run"),
        "AETHER_STATE_DIR": str(folder / "state"),
    }
    settings = Settings.load(environment)
    settings = settings.replace(snapshot_dir=Path(f"/dev/shm/aetest-{settings.orchestrator_id}"))
    settings.write()
    assert json.loads(settings.settings_path.read_text())["snapshot_dir"]
    return Settings.load(environment)
