# SPDX-License-Identifier: Apache-2.0
"""A netplane alone, with a host, an outside and sandboxes that are network namespaces of the test.

The service runs in the namespace that plays the host, so that every address, route, rule and
network sysctl it changes is the test's own. Its hooks sit at the machine's one cgroup root.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from aetherless.netplane.v1 import (
    endpoint_pb2,
    netplane_service_pb2,
    netplane_service_pb2_grpc,
    route_pb2,
)
from aetherless_common.channels import connect, is_serving
from aetherless_common.settings import Settings

from .mesh import Orchestrator

if TYPE_CHECKING:
    from collections.abc import Iterator

TIMEOUT_S = 30
HOST_IPV4, HOST_IPV6 = "203.0.113.1", "2001:db8::1"
OUTSIDE_IPV4, OUTSIDE_IPV6 = "203.0.113.2", "2001:db8::2"
IPV4, IPV6, DUAL = (
    route_pb2.ROUTE_FAMILIES_IPV4,
    route_pb2.ROUTE_FAMILIES_IPV6,
    route_pb2.ROUTE_FAMILIES_DUAL,
)
# Listens at each ADDRESS of "ADDRESS:PORT ..." and answers every request with its name and peer.
SERVER = r"""
import socket, sys, threading
def serve(connection, peer):
    with connection:
        while data := connection.recv(65536):
            body = f"{sys.argv[1]} {peer}".encode()
            head = f"HTTP/1.1 200 OK\r\nContent-Length: {len(body)}\r\n\r\n"
            connection.sendall(head.encode() + body)
def listen(address, port):
    family = socket.AF_INET6 if ":" in address else socket.AF_INET
    server = socket.socket(family)
    server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    server.bind((address, int(port)))
    server.listen(128)
    return server
def accept(server):
    while True:
        connection, peer = server.accept()
        threading.Thread(target=serve, args=(connection, peer[0]), daemon=True).start()
servers = [listen(*text.rsplit(":", 1)) for text in sys.argv[2:]]
print("ready", [s.getsockname()[:2] for s in servers], flush=True)
for server in servers[1:]:
    threading.Thread(target=accept, args=(server,), daemon=True).start()
accept(servers[0])
"""


def tool(*command: str) -> str:
    """Run a tool of the host and return what it printed."""
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=TIMEOUT_S)
    assert done.returncode == 0, f"{command}: {done.stderr}"
    return done.stdout


class Namespace:
    """A network namespace with a name of its own.

    Arguments:
        role: What it plays; part of its name.
    """

    def __init__(self, role: str) -> None:
        self.name = f"aet-{role}-{secrets.token_hex(3)}"
        self.children: list[subprocess.Popen[str]] = []
        tool("ip", "netns", "add", self.name)
        self.ip("link", "set", "lo", "up")

    @property
    def path(self) -> str:
        """Where it is found."""
        return f"/run/netns/{self.name}"

    def command(self, *command: str) -> list[str]:
        """Return a command that runs in it; mounts stay the machine's."""
        return ["nsenter", f"--net={self.path}", *command]

    def ip(self, *arguments: str) -> str:
        """Run ip in it."""
        return tool("ip", "-n", self.name, *arguments)

    def run(self, *command: str, check: bool = True) -> subprocess.CompletedProcess[str]:
        """Run a program in it to its end."""
        done = subprocess.run(
            self.command(*command), capture_output=True, text=True, check=False, timeout=TIMEOUT_S
        )
        assert not check or done.returncode == 0, f"{command}: {done.stderr}"
        return done

    def python(self, code: str, *arguments: str, check: bool = True) -> str:
        """Run Python code in it and return what it printed, stripped."""
        return self.run(sys.executable, "-c", code, *arguments, check=check).stdout.strip()

    def start(self, *command: str) -> subprocess.Popen[str]:
        """Start a program in it; return it once it has printed a line."""
        child = subprocess.Popen(
            self.command(*command), stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )
        self.children.append(child)
        assert child.stdout is not None
        line = child.stdout.readline()
        assert line, f"{command} said nothing"
        return child

    def serve(self, name: str, *addresses: str) -> subprocess.Popen[str]:
        """Start a server that answers with its name and the peer that it sees."""
        return self.start(sys.executable, "-c", SERVER, name, *addresses)

    def get(self, host: str, port: int, *options: str) -> str:
        """Return the answer to a request, or curl's exit status as ``failed N``."""
        url = f"http://{f'[{host}]' if ':' in host else host}:{port}/"
        done = self.run("curl", "-sS", "-m", "5", *options, url, check=False)
        return done.stdout if done.returncode == 0 else f"failed {done.returncode}"

    def close(self) -> None:
        """End what was started in it, and delete it."""
        for child in self.children:
            child.terminate()
            child.communicate(timeout=TIMEOUT_S)
        self.children.clear()
        if Path(self.path).exists():
            tool("ip", "netns", "delete", self.name)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Netplane:
    """One netplane service in a namespace, by its contract.

    Arguments:
        folder: Its runtime and state folders are made in it.
        host: The namespace that plays the host.
    """

    def __init__(self, folder: Path, host: Namespace) -> None:
        self.host = host
        folder.mkdir(exist_ok=True)
        names = {"AETHER_RUNTIME_DIR": str(folder / "run"), "AETHER_STATE_DIR": str(folder / "var")}
        self.environment = {**os.environ, **names, "AETHER_DNS_UPSTREAM": OUTSIDE_IPV4}
        self.settings = Settings.load(self.environment)
        # What bears these on the machine must be gone at the end.
        Orchestrator.all_marks.extend((self.settings.orchestrator_id, str(folder)))
        self.log = folder / "netplane.log"
        self.process: subprocess.Popen[str] | None = None
        self.channel = connect(self.settings, "netplane")
        self.stub: Any = netplane_service_pb2_grpc.NetplaneServiceStub(self.channel)

    def command(self, *arguments: str) -> list[str]:
        """Return the service's command line."""
        return self.host.command(sys.executable, "-m", "aetherless_netplane", *arguments)

    def launch(self) -> None:
        """Start the service."""
        with self.log.open("a") as log:
            self.process = subprocess.Popen(
                self.command(), env=self.environment, stderr=log, text=True
            )

    def start(self) -> Self:
        """Start the service and wait until it serves."""
        self.launch()
        assert is_serving(self.settings, "netplane", TIMEOUT_S), self.log.read_text()
        return self

    def fail(self) -> list[dict[str, Any]]:
        """Start a service that can't; return its log."""
        done = subprocess.run(
            self.command(),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode != 0
        return [json.loads(line) for line in done.stderr.splitlines()]

    def kill(self) -> None:
        """End the service as a crash would."""
        assert self.process is not None
        self.process.kill()
        self.process.wait(TIMEOUT_S)
        self.process = None

    def stop(self) -> None:
        """End the service by SIGTERM, if it runs."""
        if self.process is not None:
            self.process.terminate()
            assert self.process.wait(TIMEOUT_S) == 0, self.log.read_text()
            self.process = None

    def cleanup(self) -> None:
        """Remove all it owns."""
        done = subprocess.run(
            self.command("--cleanup"),
            env=self.environment,
            capture_output=True,
            text=True,
            check=False,
            timeout=TIMEOUT_S,
        )
        assert done.returncode == 0, done.stderr

    def attach(self, name: str, sandbox: Namespace, port: int) -> endpoint_pb2.Endpoint:
        """Attach a namespace."""
        wanted = endpoint_pb2.Endpoint(netns_path=sandbox.path, trigger_port=port)
        request = netplane_service_pb2.AttachEndpointRequest(endpoint_id=name, endpoint=wanted)
        endpoint: endpoint_pb2.Endpoint = self.stub.AttachEndpoint(request).endpoint
        return endpoint

    def detach(self, name: str) -> None:
        """Detach an endpoint."""
        request = netplane_service_pb2.DetachEndpointRequest(name=f"endpoints/{name}")
        self.stub.DetachEndpoint(request)

    def route(self, port: int, endpoint: str, families: int = IPV4) -> None:
        """Set a route; an empty endpoint refuses its clients."""
        route = route_pb2.Route(
            port=port,
            function_id=f"function-{port}",
            endpoint=f"endpoints/{endpoint}" if endpoint else "",
            families=route_pb2.RouteFamilies.ValueType(families),
        )
        self.stub.SetRoute(netplane_service_pb2.SetRouteRequest(route=route))

    def unroute(self, port: int) -> None:
        """Delete a route."""
        self.stub.DeleteRoute(netplane_service_pb2.DeleteRouteRequest(name=f"routes/{port}"))

    def stats(self, port: int) -> route_pb2.RouteStats:
        """Return a route's counters."""
        request = netplane_service_pb2.GetRouteStatsRequest(name=f"routes/{port}")
        stats: route_pb2.RouteStats = self.stub.GetRouteStats(request).stats
        return stats

    def endpoints(self) -> list[endpoint_pb2.Endpoint]:
        """Return the endpoints."""
        request = netplane_service_pb2.ListEndpointsRequest()
        return list(self.stub.ListEndpoints(request).endpoints)

    def close(self) -> None:
        """End the service and remove all it owns."""
        self.stop()
        self.channel.close()
        self.cleanup()


class World:
    """A host, an outside that it has its default route to, a netplane, and sandboxes.

    Arguments:
        folder: Where the netplane's folders are made.
    """

    def __init__(self, folder: Path) -> None:
        self.stack = contextlib.ExitStack()
        self.host = self.stack.enter_context(Namespace("host"))
        self.outside = self.stack.enter_context(Namespace("outside"))
        self.netplane = Netplane(folder, self.host)
        _join(self.host, self.outside)

    def sandbox(self, name: str, port: int) -> Namespace:
        """Return a new namespace that is attached as an endpoint."""
        sandbox = self.stack.enter_context(Namespace("sandbox"))
        self.netplane.attach(name, sandbox, port)
        return sandbox

    def function(self, name: str, port: int, *addresses: str, families: int = IPV4) -> Namespace:
        """Return a sandbox with a server and a route to it."""
        sandbox = self.sandbox(name, port)
        sandbox.serve(name, *(f"{a}:{port}" for a in addresses or ("0.0.0.0",)))
        self.netplane.route(port, name, families)
        return sandbox

    def get(self, host: str, port: int, *options: str) -> str:
        """Ask from the host."""
        return self.host.get(host, port, *options)

    def close(self) -> None:
        """Take everything down."""
        self.netplane.close()
        self.stack.close()


def _join(host: Namespace, outside: Namespace) -> None:
    """Connect the host with its outside by a link named ``uplink``, and by a default route."""
    host.ip(
        "link", "add", "uplink", "type", "veth", "peer", "name", "uplink", "netns", outside.name
    )
    for side, ipv4, ipv6 in (
        (host, HOST_IPV4, HOST_IPV6),
        (outside, OUTSIDE_IPV4, OUTSIDE_IPV6),
    ):
        side.ip("address", "add", f"{ipv4}/24", "dev", "uplink")
        side.ip("address", "add", f"{ipv6}/64", "dev", "uplink", "nodad")
        side.ip("link", "set", "uplink", "up")
    host.ip("route", "add", "default", "via", OUTSIDE_IPV4)
    # A new namespace takes this from the machine, where another orchestrator may have turned it on.
    host.run("sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward")


@contextlib.contextmanager
def world(folder: Path) -> Iterator[World]:
    """Give a world whose netplane serves."""
    made = World(folder)
    try:
        made.netplane.start()
        yield made
    finally:
        made.close()
