# SPDX-License-Identifier: Apache-2.0
"""Packet fixtures: a frame, what the program makes of it, and its verdict (BPF_PROG_TEST_RUN)."""

from __future__ import annotations

import struct
from dataclasses import dataclass
from typing import TYPE_CHECKING

import pytest

from aetherless_netplane.addresses import INNER_IPV4, INNER_IPV6, OuterRange
from framework import packets
from framework.packets import FRAGMENT, ICMP, ICMPV6, INWARDS, OUTWARDS, TCP, UDP, frame, ipv4, ipv6

if TYPE_CHECKING:
    from collections.abc import Callable

    from framework.bpfkernel import Kernel

PASS, DROP, REDIRECT = -1, 2, 7
OUTER = OuterRange(5)
IN4, OUT4, SIBLING4 = str(INNER_IPV4), str(OUTER.ipv4_of(2)), str(OUTER.ipv4_of(3))
IN6, OUT6, SIBLING6 = str(INNER_IPV6), str(OUTER.ipv6_of(2)), str(OUTER.ipv6_of(3))
CLIENT4, CLIENT6 = str(OUTER.host_ipv4), str(OUTER.host_ipv6)
ELSEWHERE4, ELSEWHERE6 = "203.0.113.7", "2001:db8::7"
BODY = b"an odd payload."


@dataclass(frozen=True)
class Fixture:
    """One kind of packet.

    Arguments:
        name: What it is.
        build: Makes the IP packet from its source and destination.
        version: 4 or 6.
    """

    name: str
    build: Callable[[str, str], bytes]
    version: int = 4


def tcp4(a: str, b: str) -> bytes:
    """Return a TCP packet with payload."""
    return ipv4(a, b, TCP, packets.tcp(a, b, (40000, 8080), payload=BODY))


def udp4(a: str, b: str) -> bytes:
    """Return a UDP packet."""
    return ipv4(a, b, UDP, packets.udp(a, b, (40000, 53), BODY))


def udp4_unsummed(a: str, b: str) -> bytes:
    """Return a UDP packet without a checksum."""
    return ipv4(a, b, UDP, packets.udp(a, b, (40000, 53), BODY, summed=False))


def echo4(a: str, b: str) -> bytes:
    """Return a ping."""
    return ipv4(a, b, ICMP, packets.icmp(8, BODY))


def options4(a: str, b: str) -> bytes:
    """Return a TCP packet whose IP header has options."""
    segment = packets.tcp(a, b, (40000, 8080), payload=BODY)
    return ipv4(a, b, TCP, segment, options=b"\x01\x01\x01\x00")


def first_fragment4(a: str, b: str) -> bytes:
    """Return the first fragment of a datagram: it has the checksum of the whole."""
    whole = packets.udp(a, b, (40000, 53), BODY * 4)
    return ipv4(a, b, UDP, whole[:32], fragment=packets.MORE_FRAGMENTS)


def later_fragment4(a: str, b: str) -> bytes:
    """Return a later fragment: payload where a header would be."""
    return ipv4(a, b, UDP, BODY * 2, fragment=4)


def protocol4(a: str, b: str) -> bytes:
    """Return a packet of a protocol without a checksum over addresses (GRE)."""
    return ipv4(a, b, 47, BODY)


def tcp6(a: str, b: str) -> bytes:
    """Return a TCP packet by IPv6."""
    return ipv6(a, b, TCP, packets.tcp(a, b, (40000, 8080), payload=BODY))


def udp6(a: str, b: str) -> bytes:
    """Return a UDP packet by IPv6."""
    return ipv6(a, b, UDP, packets.udp(a, b, (40000, 53), BODY))


def echo6(a: str, b: str) -> bytes:
    """Return a ping by IPv6."""
    return ipv6(a, b, ICMPV6, packets.icmpv6(a, b, 128, BODY))


def extended6(a: str, b: str) -> bytes:
    """Return a TCP packet behind hop-by-hop and destination options."""
    hop = bytes((60, 0, 1, 4, 0, 0, 0, 0))
    destination = bytes((TCP, 0, 1, 4, 0, 0, 0, 0))
    segment = packets.tcp(a, b, (40000, 8080), payload=BODY)
    return ipv6(a, b, 0, hop + destination + segment)


def first_fragment6(a: str, b: str) -> bytes:
    """Return the first fragment of a datagram by IPv6."""
    whole = packets.udp(a, b, (40000, 53), BODY * 4)
    return ipv6(a, b, FRAGMENT, struct.pack("!BBHI", UDP, 0, 1, 7) + whole[:32])


def later_fragment6(a: str, b: str) -> bytes:
    """Return a later fragment by IPv6."""
    return ipv6(a, b, FRAGMENT, struct.pack("!BBHI", UDP, 0, 32, 7) + BODY * 2)


FIXTURES = [
    Fixture("TCP", tcp4),
    Fixture("UDP", udp4),
    Fixture("UDP without checksum", udp4_unsummed),
    Fixture("ping", echo4),
    Fixture("IP options", options4),
    Fixture("first fragment", first_fragment4),
    Fixture("later fragment", later_fragment4),
    Fixture("other protocol", protocol4),
    Fixture("TCP by IPv6", tcp6, 6),
    Fixture("UDP by IPv6", udp6, 6),
    Fixture("ping by IPv6", echo6, 6),
    Fixture("extension headers", extended6, 6),
    Fixture("first fragment by IPv6", first_fragment6, 6),
    Fixture("later fragment by IPv6", later_fragment6, 6),
]
EACH = pytest.mark.parametrize("fixture", FIXTURES, ids=lambda fixture: fixture.name)
pytestmark = pytest.mark.root


@EACH
def test_inwards_the_destination_becomes_the_inner_address(
    kernel: Kernel, fixture: Fixture
) -> None:
    """Bytes and checksums are those of a packet that was built for the inner address."""
    client, outer, inner = (CLIENT4, OUT4, IN4) if fixture.version == 4 else (CLIENT6, OUT6, IN6)
    verdict, out = kernel.run("to_sandbox", frame(fixture.build(client, outer)))
    assert verdict == PASS
    assert out == frame(fixture.build(client, inner))


@EACH
def test_outwards_the_source_becomes_the_outer_address(kernel: Kernel, fixture: Fixture) -> None:
    """Bytes and checksums are those of a packet that was built from the outer address."""
    server, outer, inner = (ELSEWHERE4, OUT4, IN4) if fixture.version == 4 else (CLIENT6, OUT6, IN6)
    verdict, out = kernel.run("from_sandbox", frame(fixture.build(inner, server), OUTWARDS))
    assert verdict == PASS
    assert out == frame(fixture.build(outer, server), OUTWARDS)


@EACH
def test_inwards_what_is_for_another_is_dropped(kernel: Kernel, fixture: Fixture) -> None:
    """The inner address from outside, and any other destination, do not enter."""
    for destination in (IN4, SIBLING4) if fixture.version == 4 else (IN6, SIBLING6):
        client = CLIENT4 if fixture.version == 4 else CLIENT6
        verdict, _ = kernel.run("to_sandbox", frame(fixture.build(client, destination)))
        assert verdict == DROP


@EACH
def test_outwards_another_source_is_dropped(kernel: Kernel, fixture: Fixture) -> None:
    """A sandbox can't speak as the host, as a sibling, or by its own outer address."""
    for source in (CLIENT4, SIBLING4, OUT4) if fixture.version == 4 else (CLIENT6, SIBLING6, OUT6):
        server = ELSEWHERE4 if fixture.version == 4 else ELSEWHERE6
        verdict, _ = kernel.run("from_sandbox", frame(fixture.build(source, server), OUTWARDS))
        assert verdict == DROP


@pytest.mark.parametrize("kind", [3, 11, 12])
def test_an_icmp_error_quotes_the_inner_address_inside(kernel: Kernel, kind: int) -> None:
    """An error about a packet of the sandbox's comes to the socket that sent it: MTU discovery."""

    def error(mine: str) -> bytes:
        # The quoted UDP checksum stays as it left: nobody checks it.
        quoted = ipv4(mine, ELSEWHERE4, UDP, packets.udp(OUT4, ELSEWHERE4, (40000, 53), BODY))
        return ipv4(ELSEWHERE4, mine, ICMP, packets.icmp(kind, quoted))

    verdict, out = kernel.run("to_sandbox", frame(error(OUT4)))
    assert (verdict, out) == (PASS, frame(error(IN4)))


def test_an_icmp_error_of_a_sandbox_quotes_its_outer_address(kernel: Kernel) -> None:
    """Port unreachable from inside reaches the client's socket."""

    def error(mine: str) -> bytes:
        datagram = packets.udp(CLIENT4, mine, (40000, 53), b"", summed=False)
        quoted = ipv4(CLIENT4, mine, UDP, datagram)
        return ipv4(mine, CLIENT4, ICMP, packets.icmp(3, quoted))

    verdict, out = kernel.run("from_sandbox", frame(error(IN4), OUTWARDS))
    assert (verdict, out) == (PASS, frame(error(OUT4), OUTWARDS))


def test_icmpv6_errors_are_translated_with_their_quote(kernel: Kernel) -> None:
    """The ICMPv6 checksum covers the quoted addresses, too."""

    def error(mine: str) -> bytes:
        quoted = ipv6(mine, CLIENT6, 59, b"")
        return ipv6(CLIENT6, mine, ICMPV6, packets.icmpv6(CLIENT6, mine, 2, quoted))

    verdict, out = kernel.run("to_sandbox", frame(error(OUT6)))
    assert (verdict, out) == (PASS, frame(error(IN6)))


@pytest.mark.parametrize("kind", [130, 133, 134, 135, 136, 143])
def test_neighbour_discovery_is_dropped(kernel: Kernel, kind: int) -> None:
    """Neighbours are permanent, routers are not asked: nothing wakes or misleads a sandbox."""
    inwards = ipv6(CLIENT6, OUT6, ICMPV6, packets.icmpv6(CLIENT6, OUT6, kind, BODY))
    outwards = ipv6(IN6, CLIENT6, ICMPV6, packets.icmpv6(IN6, CLIENT6, kind, BODY))
    assert kernel.run("to_sandbox", frame(inwards))[0] == DROP
    assert kernel.run("from_sandbox", frame(outwards, OUTWARDS))[0] == DROP


@pytest.mark.parametrize("program", ["to_sandbox", "from_sandbox"])
def test_what_is_not_ip_is_dropped(kernel: Kernel, program: str) -> None:
    """ARP and everything else that is not IP stays out and in."""
    arp = INWARDS + bytes.fromhex("0806") + bytes(28)
    assert kernel.run(program, arp)[0] == DROP


@pytest.mark.parametrize("program", ["to_sandbox", "from_sandbox"])
def test_damaged_headers_are_dropped(kernel: Kernel, program: str) -> None:
    """A header that is cut short, or lies about its length, ends here."""
    source, destination = (CLIENT4, OUT4) if program == "to_sandbox" else (IN4, ELSEWHERE4)
    good = tcp4(source, destination)
    assert kernel.run(program, frame(good))[0] == PASS
    short_header = b"\x44" + good[1:]
    long_header = good[:2] + struct.pack("!H", 12) + good[4:]
    wrong_version = b"\x65" + good[1:]
    cut_short = good[:30]
    for packet in (short_header, long_header, wrong_version, cut_short):
        assert kernel.run(program, INWARDS + b"\x08\x00" + packet)[0] == DROP


def test_a_link_without_an_endpoint_passes_nothing(kernel: Kernel) -> None:
    """While an endpoint is taken away its link is closed."""
    kernel.tables.delete_endpoint(1, 2, 1002)
    assert kernel.run("to_sandbox", frame(tcp4(CLIENT4, OUT4)))[0] == DROP
    assert kernel.run("from_sandbox", frame(tcp4(IN4, ELSEWHERE4), OUTWARDS))[0] == DROP


def call(source: str, destination: str, ports: tuple[int, int], flags: int = 16) -> bytes:
    """Return a TCP packet of a call from one function to another."""
    segment = packets.tcp(source, destination, ports, flags=flags)
    wrap = ipv4 if "." in source else ipv6
    return wrap(source, destination, TCP, segment)


@pytest.mark.parametrize(
    ("mine", "shown", "sibling"), [(IN4, OUT4, SIBLING4), (IN6, OUT6, SIBLING6)]
)
def test_a_function_calls_another_from_link_to_link(
    kernel: Kernel, mine: str, shown: str, sibling: str
) -> None:
    """A call of a sibling's trigger port goes to its link, with the MACs of its sandbox."""
    for ports in ((40000, 8080), (8080, 40000)):  # the question, and the answer to one
        verdict, out = kernel.run("from_sandbox", frame(call(mine, sibling, ports), OUTWARDS))
        assert verdict == REDIRECT
        assert out == frame(call(shown, sibling, ports), INWARDS)


@pytest.mark.parametrize(("mine", "sibling"), [(IN4, SIBLING4), (IN6, SIBLING6)])
def test_a_function_reaches_nothing_else_of_another(
    kernel: Kernel, mine: str, sibling: str
) -> None:
    """Other ports, new connections from one's own port, and other protocols end here."""
    packets_out = [
        call(mine, sibling, (40000, 22)),
        call(mine, sibling, (8080, 22), flags=packets.SYN),
        udp4(mine, sibling) if "." in mine else udp6(mine, sibling),
        echo4(mine, sibling) if "." in mine else echo6(mine, sibling),
    ]
    for packet in packets_out:
        assert kernel.run("from_sandbox", frame(packet, OUTWARDS))[0] == DROP
    missing = str(OUTER.ipv4_of(9)) if "." in mine else str(OUTER.ipv6_of(9))
    verdict, _ = kernel.run("from_sandbox", frame(call(mine, missing, (40000, 8080)), OUTWARDS))
    assert verdict == DROP
