# SPDX-License-Identifier: Apache-2.0
"""Pure arithmetic of addresses: ranges, slots, and what they are called inside."""

from __future__ import annotations

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import TYPE_CHECKING

from aetherless_netplane.layout import HOST_SLOT, MAX_SLOTS

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

INNER_IPV4 = IPv4Address("198.18.255.1")
INNER_IPV6 = IPv6Address("fd00:ae:ffff::1")
GATEWAY_IPV4 = IPv4Address("198.18.254.1")
GATEWAY_IPV6 = IPv6Address("fd00:ae:fffe::1")
RESOLVER_IPV4 = IPv4Address("198.18.254.53")
INNER_MAC = "02:ae:00:00:00:02"
HOST_MAC = "02:ae:00:00:00:01"
INNER_LINK = "eth0"

# All orchestrators of a host share these, a /22 each.
OUTER_IPV4 = IPv4Network("198.18.0.0/16")
BENCHMARK_IPV4 = IPv4Network("198.18.0.0/15")
RANGES = 63  # those below 198.18.252.0
FIRST_SLOT = 2


@dataclass(frozen=True, slots=True)
class OuterRange:
    """The outer addresses of one orchestrator: a /22, and a /112 with the same slots.

    Args:
        index: which of the ranges, 0 to 62.
    """

    index: int

    @property
    def ipv4(self) -> IPv4Network:
        """The IPv4 range."""
        return IPv4Network((int(OUTER_IPV4.network_address) + self.index * MAX_SLOTS, 22))

    @property
    def ipv6(self) -> IPv6Network:
        """The IPv6 range."""
        return IPv6Network(f"fd00:ae:{self.index + 1:x}::/112")

    def ipv4_of(self, slot: int) -> IPv4Address:
        """Return the outer IPv4 address of a slot."""
        return self.ipv4[slot]

    def ipv6_of(self, slot: int) -> IPv6Address:
        """Return the outer IPv6 address of a slot."""
        return self.ipv6[slot]

    @property
    def host_ipv4(self) -> IPv4Address:
        """The source address of the host's connections to sandboxes."""
        return self.ipv4_of(HOST_SLOT)

    @property
    def host_ipv6(self) -> IPv6Address:
        """The source address of the host's connections to sandboxes."""
        return self.ipv6_of(HOST_SLOT)


def candidates(orchestrator_id: str) -> Iterator[OuterRange]:
    """Give all ranges, the one that the orchestrator's id chooses first."""
    first = int(orchestrator_id, 16) % RANGES
    return (OuterRange((first + step) % RANGES) for step in range(RANGES))


def free_slot(taken: Collection[int]) -> int | None:
    """Return the lowest slot that no endpoint has; None when all are taken.

    The last one is left out: it would be the range's broadcast address.
    """
    return next((slot for slot in range(FIRST_SLOT, MAX_SLOTS - 1) if slot not in taken), None)
