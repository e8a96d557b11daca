# SPDX-License-Identifier: Apache-2.0
"""What a function reaches: other functions, the outside by IPv4, a resolver; and what not."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from framework.networld import (
    DUAL,
    HOST_IPV4,
    HOST_IPV6,
    IPV6,
    OUTSIDE_IPV4,
    OUTSIDE_IPV6,
    Namespace,
    World,
    world,
)

if TYPE_CHECKING:
    from collections.abc import Iterator

SHARES_A_WORLD = True  # see conftest.py

RESOLVER = "198.18.254.53"
TIMED_OUT, REFUSED = "failed 28", "failed 7"
# Answers each query with its own id and one A record, 192.0.2.99.
DNS_SERVER = r"""
import socket, threading
def answer(query):
    question = query[12:query.index(b"\0", 12) + 5]
    head = query[:2] + b"\x81\x80\0\1\0\1\0\0\0\0"
    return head + question + b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((192, 0, 2, 99))
def by_tcp():
    server = socket.create_server(("0.0.0.0", 53))
    while True:
        connection, _ = server.accept()
        reply = answer(connection.recv(999)[2:])
        connection.sendall(len(reply).to_bytes(2, "big") + reply)
        connection.close()
threading.Thread(target=by_tcp, daemon=True).start()
server = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
server.bind(("0.0.0.0", 53))
print("ready", flush=True)
while True:
    query, peer = server.recvfrom(999)
    server.sendto(answer(query), peer)
"""
DNS_CLIENT = r"""
import socket, sys
query = b"\x12\x34\1\0\0\1\0\0\0\0\0\0\7example\0\0\1\0\1"
if sys.argv[2] == "udp":
    s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
    s.connect((sys.argv[1], 53)); s.send(query); reply = s.recv(999)
else:
    s = socket.create_connection((sys.argv[1], 53), 5)
    s.sendall(len(query).to_bytes(2, "big") + query); reply = s.recv(999)[2:]
print(reply[:2] == query[:2], ".".join(map(str, reply[-4:])))
"""


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Give one world, with two functions and an outside, to the tests of this module."""
    with world(tmp_path_factory.mktemp("netplane")) as made:
        made.outside.start("/usr/bin/python3", "-c", DNS_SERVER)
        made.outside.serve("outside", "0.0.0.0:8000", ":::8001")
        made.host.serve("host", "0.0.0.0:9000", ":::9001")
        yield made


@pytest.fixture(scope="module")
def one(shared: World) -> Namespace:
    """Give the sandbox of the first function."""
    return shared.function("one", 8080, "127.0.0.1")


@pytest.fixture(scope="module")
def two(shared: World) -> Namespace:
    """Give the sandbox of the second function."""
    return shared.function("two", 8081, "127.0.0.1", "::1", families=DUAL)


@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "::1", HOST_IPV4, HOST_IPV6])
def test_functions_call_each_other_on_localhost(
    shared: World, one: Namespace, two: Namespace, host: str
) -> None:
    """Another function's trigger port on localhost leads to it, from inside, both ways."""
    assert one.get(host, 8081).startswith("two ")
    assert two.get(host, 8080).startswith("one ")


def test_a_call_between_functions_is_counted(shared: World, one: Namespace, two: Namespace) -> None:
    """The callee's route counts it."""
    before = shared.netplane.stats(8081).requests
    one.get("127.0.0.1", 8081)
    assert shared.netplane.stats(8081).requests == before + 1


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
def test_the_own_port_stays_local(shared: World, two: Namespace, host: str) -> None:
    """A function that calls itself stays in its sandbox, also where its listener was moved."""
    before = shared.netplane.stats(8081).connections
    assert two.get(host, 8081).startswith("two ")
    assert shared.netplane.stats(8081).connections == before


def test_another_functions_other_ports_are_out_of_reach(
    shared: World, one: Namespace, two: Namespace
) -> None:
    """Only the trigger port answers at a sibling's outer address; a debugger's port does not."""
    two.serve("debugger", "0.0.0.0:5005")
    address = next(e.outer_ipv4 for e in shared.netplane.endpoints() if e.name == "endpoints/two")
    assert one.get(address, 5005, "-m", "1") == TIMED_OUT
    assert one.get(address, 8081).startswith("two ")


def test_the_hosts_other_ports_are_out_of_reach(shared: World, one: Namespace) -> None:
    """By no address of the host, of either family, does a function reach a host's service."""
    assert shared.get("127.0.0.1", 9000).startswith("host ")
    gateway = "198.18.254.1"
    own = str(shared.host.ip("-4", "-br", "address", "show", "lo").split()[3].partition("/")[0])
    for address in (HOST_IPV4, gateway, own):
        assert one.get(address, 9000, "-m", "1") == TIMED_OUT
    assert one.get("127.0.0.1", 9000) == REFUSED
    assert one.get(HOST_IPV6, 9001, "-m", "1").startswith("failed")


def test_outbound_ipv4_is_masqueraded(shared: World, one: Namespace) -> None:
    """The outside answers, and sees the host's address."""
    assert one.get(OUTSIDE_IPV4, 8000) == f"outside {HOST_IPV4}"


def test_outbound_ipv6_fails_at_once(shared: World, one: Namespace) -> None:
    """There is no way out by IPv6: ENETUNREACH, so that programs turn to IPv4 without waiting."""
    code = f"""
import errno, socket
for kind in (socket.SOCK_STREAM, socket.SOCK_DGRAM):
    s = socket.socket(socket.AF_INET6, kind)
    print(errno.errorcode.get(s.connect_ex(("{OUTSIDE_IPV6}", 8001)), "OK"))
"""
    assert one.python(code).split() == ["ENETUNREACH", "ENETUNREACH"]


@pytest.mark.parametrize("protocol", ["udp", "tcp"])
def test_the_constant_resolver_is_todays_upstream(
    shared: World, one: Namespace, protocol: str
) -> None:
    """A query to the resolver address, which snapshots keep, is answered by the host's upstream."""
    assert one.python(DNS_CLIENT, RESOLVER, protocol) == "True 192.0.2.99"


def test_the_metadata_service_is_out_of_reach(shared: World, one: Namespace) -> None:
    """A cloud's metadata service would hand out the host's credentials."""
    shared.outside.ip("address", "add", "169.254.169.254/32", "dev", "lo")
    shared.outside.serve("metadata", "169.254.169.254:80")
    assert shared.get("169.254.169.254", 80).startswith("metadata ")
    assert one.get("169.254.169.254", 80, "-m", "1") == TIMED_OUT


def test_packets_of_the_outside_do_not_enter_a_sandbox(shared: World, one: Namespace) -> None:
    """A neighbour that routes our range to the host reaches no sandbox, nor beyond the host."""
    address = next(e.outer_ipv4 for e in shared.netplane.endpoints() if e.name == "endpoints/one")
    shared.outside.ip("route", "add", "198.18.0.0/15", "via", HOST_IPV4)
    shared.outside.ip("route", "add", "192.0.2.0/24", "via", HOST_IPV4)
    assert shared.outside.get(address, 8080, "-m", "1") == TIMED_OUT
    shared.host.ip("link", "add", "second", "type", "veth", "peer", "name", "third")
    shared.host.ip("address", "add", "192.0.2.1/24", "dev", "second")
    shared.host.ip("link", "set", "second", "up")
    code = (
        'import socket; s=socket.socket(); s.settimeout(1); print(s.connect_ex(("192.0.2.9", 1)))'
    )
    assert shared.outside.python(code) == "11"
    shared.host.ip("link", "delete", "second")


def test_a_stolen_source_address_is_dropped(shared: World, one: Namespace) -> None:
    """A sandbox that gives itself another address sends nothing anywhere."""
    one.ip("address", "add", "198.18.255.9/32", "dev", "eth0")
    assert one.get(OUTSIDE_IPV4, 8000, "--interface", "198.18.255.9", "-m", "1") == TIMED_OUT
    one.ip("address", "del", "198.18.255.9/32", "dev", "eth0")


def test_icmp_errors_come_to_the_socket(shared: World, one: Namespace) -> None:
    """A closed UDP port of the outside is told to the function's socket as ECONNREFUSED."""
    code = f"""
import socket
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM); s.settimeout(5)
s.connect(("{OUTSIDE_IPV4}", 7)); s.send(b"x")
try:
    s.recv(9)
except OSError as error:
    print(type(error).__name__)
"""
    assert one.python(code) == "ConnectionRefusedError"


def test_large_answers_arrive_whole(shared: World, one: Namespace) -> None:
    """Segments that the kernel joins and splits on the way have right checksums and counts."""
    code = """
import hashlib, socket
server = socket.create_server(("127.0.0.1", 8090)); print("ready", flush=True)
while True:
    connection, _ = server.accept()
    data = b"".join(iter(lambda: connection.recv(65536), b""))
    connection.sendall(hashlib.sha256(data).hexdigest().encode() + data); connection.close()
"""
    sandbox = shared.sandbox("large", 8090)
    sandbox.start("/usr/bin/python3", "-c", code)
    shared.netplane.route(8090, "large")
    client = """
import hashlib, os, socket
data = os.urandom(8 << 20)
s = socket.create_connection(("127.0.0.1", 8090), 20)
import threading
threading.Thread(target=lambda: (s.sendall(data), s.shutdown(1))).start()
got = b"".join(iter(lambda: s.recv(65536), b""))
print(got[:64].decode() == hashlib.sha256(data).hexdigest(), got[64:] == data)
"""
    assert shared.host.python(client) == "True True"
    stats = shared.netplane.stats(8090)
    assert (stats.received_bytes, stats.sent_bytes) == (8 << 20, (8 << 20) + 64)


def test_the_inner_addresses_are_the_same_everywhere(
    shared: World, one: Namespace, two: Namespace
) -> None:
    """One snapshot fits all sandboxes: same address, MAC, name and routes."""
    views = [
        (
            sandbox.ip("-br", "address", "show", "eth0").split()[2:],
            sandbox.run("cat", "/sys/class/net/eth0/address", check=False).stdout,
            sandbox.ip("route"),
            sandbox.ip("-6", "route"),
            sandbox.ip("neighbour"),
        )
        for sandbox in (one, two)
    ]
    assert views[0] == views[1]
    assert views[0][0] == ["198.18.255.1/32", "fd00:ae:ffff::1/128"]
    assert "198.18.254.1 dev eth0 lladdr 02:ae:00:00:00:01 PERMANENT" in views[0][4]


def test_an_ipv6_function_is_called_by_another(shared: World, one: Namespace) -> None:
    """IPv6 goes from link to link, too."""
    shared.function("six", 8082, "::1", families=IPV6)
    assert one.get("::1", 8082).startswith("six fd00:ae:")
