# SPDX-License-Identifier: Apache-2.0
"""Packets built by hand, with every checksum right: what goes into a tc program, and comes out."""

from __future__ import annotations

import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

INWARDS = bytes.fromhex("02ae00000002 02ae00000001".replace(" ", ""))
OUTWARDS = bytes.fromhex("02ae00000001 02ae00000002".replace(" ", ""))
FIN, SYN, RST, PSH, ACK = 1, 2, 4, 8, 16
ICMP, TCP, UDP, FRAGMENT, ICMPV6 = 1, 6, 17, 44, 58
MORE_FRAGMENTS = 0x2000

Address = IPv4Address | IPv6Address


def checksum(data: bytes) -> int:
    """Return the Internet checksum (RFC 1071)."""
    padded = data + b"\0" * (len(data) % 2)
    total: int = sum(struct.unpack(f"!{len(padded) // 2}H", padded))
    while total >> 16:
        total = (total & 0xFFFF) + (total >> 16)
    return ~total & 0xFFFF


def pseudo_header(source: Address, destination: Address, protocol: int, length: int) -> bytes:
    """Return what TCP, UDP and ICMPv6 checksums cover beside the segment."""
    packed = source.packed + destination.packed
    if source.version == 4:
        return packed + struct.pack("!BBH", 0, protocol, length)
    return packed + struct.pack("!IHBB", length, 0, 0, protocol)


def with_checksum(
    segment: bytes, offset: int, source: str, destination: str, protocol: int
) -> bytes:
    """Return a segment with its checksum, over the pseudo header too, put in at an offset."""
    a, b = ip_address(source), ip_address(destination)
    total = checksum(pseudo_header(a, b, protocol, len(segment)) + segment)
    return segment[:offset] + struct.pack("!H", total) + segment[offset + 2 :]


def tcp(
    source: str,
    destination: str,
    ports: tuple[int, int],
    *,
    flags: int = ACK,
    sequence: int = 1000,
    payload: bytes = b"",
) -> bytes:
    """Return a TCP segment."""
    head = struct.pack("!HHIIBBHHH", *ports, sequence & 0xFFFFFFFF, 0, 5 << 4, flags, 8192, 0, 0)
    return with_checksum(head + payload, 16, source, destination, TCP)


def udp(
    source: str, destination: str, ports: tuple[int, int], payload: bytes, *, summed: bool = True
) -> bytes:
    """Return a UDP datagram, without a checksum when it is not to be summed."""
    segment = struct.pack("!HHHH", *ports, 8 + len(payload), 0) + payload
    return with_checksum(segment, 6, source, destination, UDP) if summed else segment


def icmp(kind: int, body: bytes) -> bytes:
    """Return an ICMP message."""
    message = struct.pack("!BBHI", kind, 0, 0, 0x00010002) + body
    return message[:2] + struct.pack("!H", checksum(message)) + message[4:]


def icmpv6(source: str, destination: str, kind: int, body: bytes) -> bytes:
    """Return an ICMPv6 message."""
    message = struct.pack("!BBHI", kind, 0, 0, 0x00010002) + body
    return with_checksum(message, 2, source, destination, ICMPV6)


def ipv4(
    source: str,
    destination: str,
    protocol: int,
    payload: bytes,
    *,
    fragment: int = 0,
    options: bytes = b"",
) -> bytes:
    """Return an IPv4 packet; ``fragment`` is its flags and offset field."""
    size = 20 + len(options)
    head = struct.pack(
        "!BBHHHBBH4s4s",
        0x40 | size // 4,
        0,
        size + len(payload),
        0x1234,
        fragment,
        64,
        protocol,
        0,
        IPv4Address(source).packed,
        IPv4Address(destination).packed,
    )
    head += options
    return head[:10] + struct.pack("!H", checksum(head)) + head[12:] + payload


def ipv6(source: str, destination: str, protocol: int, payload: bytes) -> bytes:
    """Return an IPv6 packet; extension headers are part of the payload."""
    packed = IPv6Address(source).packed + IPv6Address(destination).packed
    return struct.pack("!IHBB", 6 << 28, len(payload), protocol, 64) + packed + payload


def frame(packet: bytes, macs: bytes = INWARDS) -> bytes:
    """Return an Ethernet frame of an IP packet."""
    return macs + struct.pack("!H", 0x0800 if packet[0] >> 4 == 4 else 0x86DD) + packet
