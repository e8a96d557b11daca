# SPDX-License-Identifier: Apache-2.0
"""Local clients reach a function at every address that means this host; nobody else is touched."""

from __future__ import annotations

import shutil
import subprocess
from ipaddress import ip_address
from typing import TYPE_CHECKING

import pytest

from framework.networld import (
    DUAL,
    HOST_IPV4,
    HOST_IPV6,
    IPV6,
    Namespace,
    World,
    world,
)
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

SHARES_A_WORLD = True  # see conftest.py

PORT = 8080
REFUSED = "failed 7"
CONNECT = """
import socket, sys
host, port, only6 = sys.argv[1], int(sys.argv[2]), sys.argv[3] == "only6"
client = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
if only6:
    client.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 1)
print(client.connect_ex((host, port)))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give one world to the tests of this module."""
    with world(tmp_path_factory.mktemp("netplane")) as made:
        made.function("four", PORT)
        made.function("six", PORT + 1, "::1", families=IPV6)
        made.function("both", PORT + 2, "127.0.0.1", "::1", families=DUAL)
        yield made


@pytest.mark.parametrize(
    ("host", "shown"),
    [
        ("127.0.0.1", "127.0.0.1"),
        ("localhost", None),
        ("127.9.8.7", "127.9.8.7"),
        ("0.0.0.0", "0.0.0.0"),
        ("::1", "::1"),
        ("::ffff:127.0.0.1", "::ffff:127.0.0.1"),
        (HOST_IPV4, HOST_IPV4),
        (f"::ffff:{HOST_IPV4}", f"::ffff:{HOST_IPV4}"),
        (HOST_IPV6, HOST_IPV6),
    ],
)
def test_every_name_of_the_host_leads_to_an_ipv4_handler(
    shared: World, host: str, shown: str | None
) -> None:
    """The handler answers, and getpeername(2) says what the client asked for."""
    answer = shared.get(host, PORT, "-w", " %{remote_ip}")
    name, _, told = answer.split(" ")
    assert name == "four"
    assert shown is None or told == shown


def test_a_socket_for_ipv6_only_is_refused_by_an_ipv4_handler(shared: World) -> None:
    """IPV6_V6ONLY means it: ECONNREFUSED, as without an orchestrator."""
    assert shared.host.python(CONNECT, "::1", str(PORT), "only6") == "111"
    assert shared.host.python(CONNECT, "::1", str(PORT), "any") == "0"


def test_an_ipv6_handler_answers_ipv6_alone(shared: World) -> None:
    """What listens on ::1 only does not answer 127.0.0.1, whose clients are told so at once."""
    assert shared.get("::1", PORT + 1).startswith("six ")
    assert shared.get(HOST_IPV6, PORT + 1).startswith("six ")
    assert shared.get("127.0.0.1", PORT + 1) == REFUSED
    assert shared.get("::ffff:127.0.0.1", PORT + 1) == REFUSED


def test_listeners_on_both_loopbacks_live_side_by_side(shared: World) -> None:
    """127.0.0.1 and ::1, bound by one program, are both reached, each by its own family."""
    assert ":" not in shared.get("127.0.0.1", PORT + 2).split()[1].removeprefix("::ffff:")
    assert ":" in shared.get("::1", PORT + 2).split()[1]


def test_a_new_address_of_the_host_counts_at_once(shared: World) -> None:
    """One that comes leads to functions, one that goes does not any more."""
    shared.host.ip("address", "add", "203.0.113.77/24", "dev", "uplink")
    wait_until(lambda: shared.get("203.0.113.77", PORT).startswith("four "), "the new address")
    shared.host.ip("address", "del", "203.0.113.77/24", "dev", "uplink")
    wait_until(lambda: not shared.get("203.0.113.77", PORT).startswith("four "), "it is gone")


def test_another_namespace_keeps_its_own_loopback(shared: World) -> None:
    """A container with the same port on its own loopback talks to itself."""
    with Namespace("container") as container:
        assert container.get("127.0.0.1", PORT) == REFUSED
        container.serve("own", f"127.0.0.1:{PORT}", f"::1:{PORT}")
        assert container.get("127.0.0.1", PORT) == "own 127.0.0.1"
        assert container.get("::1", PORT) == "own ::1"


def test_udp_is_untouched(shared: World) -> None:
    """A UDP socket of the host binds the port and is reached on it."""
    code = f"""
import socket
for family, host in ((socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")):
    server, client = (socket.socket(family, socket.SOCK_DGRAM) for _ in range(2))
    server.bind((host, {PORT})); server.settimeout(5)
    client.connect((host, {PORT})); client.send(b"x")
    print(server.recv(9).decode(), client.getpeername()[0])
"""
    assert shared.host.python(code).split("\n") == ["x 127.0.0.1", "x ::1"]


def test_a_reused_socket_forgets_what_it_meant(shared: World) -> None:
    """After connecting to something else, getpeername(2) says that."""
    shared.host.serve("plain", "127.0.0.1:9999")
    code = f"""
import ctypes, socket
s = socket.socket()
s.connect(("127.0.0.2", {PORT})); print(s.getpeername()[0])
libc = ctypes.CDLL(None); libc.connect(s.fileno(), bytes(16), 16)
s.connect(("127.0.0.1", 9999)); print(s.getpeername()[0])
"""
    assert shared.host.python(code).split() == ["127.0.0.2", "127.0.0.1"]


def test_a_trigger_port_is_reserved(shared: World) -> None:
    """Nobody on the host binds it, on any address; automatic ports leave it out."""
    code = """
import socket, sys
for host in ("127.0.0.1", "0.0.0.0", "::"):
    try:
        family = socket.AF_INET6 if ":" in host else socket.AF_INET
        socket.socket(family).bind((host, int(sys.argv[1])))
    except OSError as error:
        print(error.errno)
"""
    assert shared.host.python(code, str(PORT)).split() == ["98", "98", "98"]
    reserved = shared.host.run("cat", "/proc/sys/net/ipv4/ip_local_reserved_ports").stdout
    assert reserved.strip() == f"{PORT}-{PORT + 2}"
    with Namespace("container") as container:
        assert container.python(code, str(PORT)) == ""


def test_no_endpoint_refuses_at_once(shared: World) -> None:
    """While nobody can answer, clients get ECONNREFUSED from connect(2) itself."""
    shared.netplane.route(9100, "")
    for host in ("127.0.0.1", "::1", HOST_IPV4, HOST_IPV6):
        assert shared.host.python(CONNECT, host, "9100", "any") == "111"
    shared.netplane.unroute(9100)
    shared.host.serve("free", "127.0.0.1:9100")
    assert shared.get("127.0.0.1", 9100) == "free 127.0.0.1"


def test_mptcp_clients_reach_a_function(shared: World) -> None:
    """A socket of IPPROTO_MPTCP connects by TCP underneath, and is led as well."""
    code = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262)
s.connect(("127.0.0.1", {PORT})); s.send(b"GET / HTTP/1.0\\r\\n\\r\\n")
print(s.recv(99).decode()[-20:])
"""
    assert "four" in shared.host.python(code)


@pytest.fixture(scope="module")
def clients(tmp_path_factory: pytest.TempPathFactory, repository: Path) -> dict[str, list[str]]:
    """Return the command line of a client in each language."""
    folder = repository / "tests" / "programs" / "clients"
    built = tmp_path_factory.mktemp("clients")
    java, node = shutil.which("java"), shutil.which("node")
    assert java
    assert node
    go = shutil.which("go") or "/usr/local/go/bin/go"
    go_build = [go, "build", "-o", str(built / "client"), str(folder / "client.go")]
    subprocess.run(go_build, check=True, timeout=120, capture_output=True)
    return {
        "python": ["/usr/bin/python3", str(folder / "client.py")],
        "node": [node, str(folder / "client.js")],
        "go": [str(built / "client")],
        "java": [java, str(folder / "Client.java")],
    }


@pytest.mark.parametrize("language", ["python", "node", "go", "java"])
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", HOST_IPV4])
def test_clients_of_each_language(
    shared: World, clients: dict[str, list[str]], language: str, host: str
) -> None:
    """Each runtime's own HTTP client is answered and sees the address that it asked for."""
    status, peer = shared.host.run(*clients[language], host, str(PORT)).stdout.split()
    assert status == "200"
    shown = str(ip_address(peer.removeprefix("::ffff:")))
    assert shown in ({"127.0.0.1", "::1"} if host == "localhost" else {host})


def test_the_same_port_outside_is_another_host(shared: World) -> None:
    """A destination that is not this host is left alone, whatever the port."""
    shared.outside.serve("outside", f"0.0.0.0:{PORT}")
    assert shared.get("203.0.113.2", PORT) == f"outside {HOST_IPV4}"
