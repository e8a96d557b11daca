# SPDX-License-Identifier: Apache-2.0
"""The netplane's RPCs: repeated, refused with their reasons, and listed in pages."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import pytest

from aetherless.netplane.v1 import netplane_service_pb2, route_pb2
from aetherless_common.errors import (
    AetherlessError,
    AlreadyExists,
    FailedPrecondition,
    InvalidArgument,
    NotFound,
)
from framework.networld import Namespace, World, world

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARES_A_WORLD = True  # see conftest.py

PORT = 8080


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give one world, with one function, to the tests of this module."""
    with world(tmp_path_factory.mktemp("netplane")) as made:
        made.function("f", PORT)
        yield made


@pytest.fixture
def sandbox() -> Iterator[Namespace]:
    """Give a namespace that is attached nowhere."""
    with Namespace("sandbox") as made:
        yield made


def reason(error: pytest.ExceptionInfo[AetherlessError]) -> tuple[str, str]:
    """Return the domain and the reason of an error."""
    return error.value.domain, error.value.reason


def test_attach_is_repeatable(shared: World, sandbox: Namespace) -> None:
    """The same id and namespace return the endpoint that there is; detaching twice is fine."""
    first = shared.netplane.attach("again", sandbox, 9000)
    assert shared.netplane.attach("again", sandbox, 9000) == first
    shared.netplane.detach("again")
    shared.netplane.detach("again")
    assert "endpoints/again" not in {e.name for e in shared.netplane.endpoints()}


def test_the_endpoint_is_described(shared: World) -> None:
    """Every output field is filled; the link and the pinned map are there."""
    endpoint = shared.netplane.endpoints()[0]
    assert endpoint.host_link in shared.host.ip("-br", "link")
    assert os.path.exists(endpoint.state_map_path)  # noqa: PTH110  # what a sandbox's maker opens
    assert endpoint.outer_ipv4.startswith("198.18.")
    assert endpoint.outer_ipv6.startswith("fd00:ae:")
    assert (endpoint.inner_ipv4, endpoint.inner_ipv6) == ("198.18.255.1", "fd00:ae:ffff::1")
    assert endpoint.trigger_port == PORT


def test_another_sandbox_of_the_same_id_is_refused(shared: World, sandbox: Namespace) -> None:
    """ENDPOINT_EXISTS names the endpoint."""
    with pytest.raises(AlreadyExists) as error:
        shared.netplane.attach("f", sandbox, PORT)
    assert reason(error) == ("netplane.aetherless", "ENDPOINT_EXISTS")
    assert error.value.metadata["endpoint"] == "endpoints/f"


def test_an_endpoint_in_use_stays(shared: World) -> None:
    """ENDPOINT_IN_USE names the route that leads to it."""
    with pytest.raises(FailedPrecondition) as error:
        shared.netplane.detach("f")
    assert reason(error)[1] == "ENDPOINT_IN_USE"
    assert error.value.metadata["route"] == f"routes/{PORT}"
    assert shared.get("127.0.0.1", PORT).startswith("f ")


@pytest.mark.parametrize("path", ["/run/netns/aet-there-is-none", "/etc/hostname"])
def test_a_namespace_that_cannot_be_entered(
    shared: World, sandbox: Namespace, path: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """NETNS_UNREACHABLE has the path and the errno; nothing is left behind."""
    links = shared.host.ip("-br", "link")
    monkeypatch.setattr(Namespace, "path", path)
    with pytest.raises(FailedPrecondition) as error:
        shared.netplane.attach("nowhere", sandbox, 9000)
    monkeypatch.undo()
    assert reason(error)[1] == "NETNS_UNREACHABLE"
    assert error.value.metadata["netns"] == path
    assert error.value.metadata["errno"] in {"ENOENT", "EINVAL"}
    assert shared.host.ip("-br", "link") == links


def test_a_namespace_with_an_eth0_is_refused(shared: World, sandbox: Namespace) -> None:
    """LINK_FAILED, and what was made until then is gone."""
    links = shared.host.ip("-br", "link")
    sandbox.ip("link", "add", "eth0", "type", "veth", "peer", "name", "other")
    with pytest.raises(FailedPrecondition) as error:
        shared.netplane.attach("taken", sandbox, 9000)
    assert reason(error)[1] == "LINK_FAILED"
    assert error.value.metadata["errno"] == "EEXIST"
    assert shared.host.ip("-br", "link") == links


def test_the_hosts_own_namespace_is_refused(shared: World) -> None:
    """The host is no sandbox."""
    with pytest.raises(InvalidArgument) as error:
        shared.netplane.attach("host", shared.host, 9000)
    assert error.value.metadata["field"] == "endpoint.netns_path"


def test_a_port_in_use_names_its_process(shared: World) -> None:
    """PORT_IN_USE has the name and pid of who listens, on either family; nothing is reserved."""
    for number, address in enumerate(("127.0.0.1", "::1", "0.0.0.0")):
        server = shared.host.serve("other", f"{address}:{9200 + number}")
        with pytest.raises(FailedPrecondition) as error:
            shared.netplane.route(9200 + number, "")
        assert reason(error)[1] == "PORT_IN_USE"
        assert error.value.metadata["pid"] == str(server.pid)
        assert error.value.metadata["process"].startswith("python")
        assert error.value.remedy
        assert shared.get(address, 9200 + number).startswith("other ")
    reserved = shared.host.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout
    assert reserved.strip() == str(PORT)


def test_a_port_whose_server_ended_a_moment_ago_is_free(shared: World) -> None:
    """Connections that wait in TIME_WAIT do not keep a port from being reserved."""
    server = shared.host.serve("gone", "127.0.0.1:9300")
    code = (
        "import socket; s=socket.create_connection(('127.0.0.1', 9300)); s.send(b'x'); s.recv(99)"
    )
    shared.host.python(code)
    server.terminate()
    server.wait(20)
    shared.netplane.route(9300, "")
    shared.netplane.unroute(9300)


def test_routes_name_what_exists(shared: World) -> None:
    """A route to a missing endpoint, and a missing route, are refused by name."""
    with pytest.raises(NotFound) as error:
        shared.netplane.route(9400, "missing")
    assert reason(error)[1] == "ENDPOINT_NOT_FOUND"
    assert error.value.metadata["endpoint"] == "endpoints/missing"
    for call in (shared.netplane.unroute, shared.netplane.stats):
        with pytest.raises(NotFound) as error:
            call(9400)
        assert reason(error)[1] == "ROUTE_NOT_FOUND"
        assert error.value.metadata["route"] == "routes/9400"


def test_a_route_and_its_endpoint_have_one_port(shared: World) -> None:
    """The hooks change addresses, not ports."""
    with pytest.raises(InvalidArgument) as error:
        shared.netplane.route(9401, "f")
    assert error.value.metadata["field"] == "route.endpoint"


@pytest.mark.parametrize(
    ("route", "field"),
    [
        (route_pb2.Route(port=0, function_id="f", families=1), "route.port"),  # type: ignore[arg-type]
        (route_pb2.Route(port=65536, function_id="f", families=1), "route.port"),  # type: ignore[arg-type]
        (route_pb2.Route(port=9500, function_id="f"), "route.families"),
        (route_pb2.Route(port=9500, families=1), "route.function_id"),  # type: ignore[arg-type]
        (
            route_pb2.Route(port=9500, function_id="f", families=1, endpoint="f"),  # type: ignore[arg-type]
            "route.endpoint",
        ),
    ],
)
def test_wrong_fields_are_named(shared: World, route: route_pb2.Route, field: str) -> None:
    """INVALID_ARGUMENT says which field."""
    with pytest.raises(InvalidArgument) as error:
        shared.netplane.stub.SetRoute(netplane_service_pb2.SetRouteRequest(route=route))
    assert error.value.metadata["field"] == field


def test_a_route_moves_between_endpoints_and_keeps_its_counters(
    shared: World, sandbox: Namespace
) -> None:
    """New connections go to the new endpoint at once; the old one can go then."""
    shared.netplane.attach("g", sandbox, PORT)
    sandbox.serve("g", f"0.0.0.0:{PORT}")
    before = shared.netplane.stats(PORT).requests
    shared.get("127.0.0.1", PORT)
    shared.netplane.route(PORT, "g")
    assert shared.get("127.0.0.1", PORT).startswith("g ")
    shared.netplane.route(PORT, "f")
    assert shared.get("127.0.0.1", PORT).startswith("f ")
    shared.netplane.detach("g")
    assert shared.netplane.stats(PORT).requests == before + 3


def test_lists_come_in_pages(shared: World) -> None:
    """Routes are ordered by port, also where the numbers' texts are not."""
    for port in (99, 9600, 10000):
        shared.netplane.route(port, "")
    ports, token = [], ""
    while True:
        request = netplane_service_pb2.ListRoutesRequest(page_size=2, page_token=token)
        answer = shared.netplane.stub.ListRoutes(request)
        ports += [route.port for route in answer.routes]
        token = answer.next_page_token
        if not token:
            break
    for port in (99, 9600, 10000):
        shared.netplane.unroute(port)
    assert ports == [99, PORT, 9600, 10000]


def test_the_host_passes_its_checks(shared: World) -> None:
    """CheckHost tries each thing; here all are well, and nothing stays of the trying."""
    links = shared.host.ip("-br", "link")
    checks = shared.netplane.stub.CheckHost(netplane_service_pb2.CheckHostRequest()).checks
    assert {c.name: c.message for c in checks if not c.ok} == {}
    names = "kernel btf capabilities libbpf bpf-objects bpffs cgroup2 nft ipv6 clsact forward dns"
    assert [check.name for check in checks] == names.split()
    assert shared.host.ip("-br", "link") == links


def test_a_forward_policy_of_others_is_named(shared: World) -> None:
    """Where Docker or ufw drops what it does not know, the check names the chain and the way."""
    rules = "{ type filter hook forward priority 0; policy drop; }"
    shared.host.run("nft", "add", "table", "ip", "theirs")
    shared.host.run("nft", "add", "chain", "ip", "theirs", "FORWARD", rules)
    checks = shared.netplane.stub.CheckHost(netplane_service_pb2.CheckHostRequest()).checks
    shared.host.run("nft", "delete", "table", "ip", "theirs")
    failed = [check for check in checks if not check.ok]
    assert [check.name for check in failed] == ["forward"]
    assert "ip theirs FORWARD" in failed[0].message
    assert failed[0].remedy
    assert failed[0].reason == "KERNEL_FEATURE_MISSING"
