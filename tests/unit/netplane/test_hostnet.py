# SPDX-License-Identifier: Apache-2.0
"""Which uses of the host's addresses clash with a range; claiming itself is tested live."""

from __future__ import annotations

from ipaddress import ip_network

import pytest

from aetherless_netplane.addresses import OuterRange
from aetherless_netplane.hostnet import METRIC_BASE, Use, claimed, clash

OUTER = OuterRange(2)


def use(network: str, link: str = "eth0", metric: int = 0) -> Use:
    """Return a use of a network."""
    return Use(ip_network(network), f"route {network} by {link}", link, metric)


@pytest.mark.parametrize(
    "network", ["198.18.8.0/22", "198.18.8.7/32", "198.18.0.0/15", "fd00:ae:3::/112", "fd00::/16"]
)
def test_a_route_or_address_in_the_range_clashes(network: str) -> None:
    """A part of it, all of it, or more than it, in either family."""
    assert clash(OUTER, [use("10.0.0.0/8"), use(network)], "ae0dd0e0") == use(network)


@pytest.mark.parametrize(
    "network", ["0.0.0.0/0", "0.0.0.0/1", "128.0.0.0/1", "::/0", "198.18.12.0/22", "10.0.0.0/8"]
)
def test_default_routes_and_other_networks_do_not(network: str) -> None:
    """A default route, also in the two halves that VPNs make, is no use of the range."""
    assert clash(OUTER, [use(network)], "ae0dd0e0") is None


def test_the_own_links_do_not_clash() -> None:
    """A restarted service finds the routes to its own endpoints."""
    assert clash(OUTER, [use("198.18.8.2/32", "ae0dd0e02")], "ae0dd0e0") is None


def test_a_claim_is_known_by_its_metric() -> None:
    """The metric holds the orchestrator's id."""
    mine = use("198.18.8.0/22", "", METRIC_BASE | 0x0DD0E0)
    assert claimed("0dd0e0", [use("198.18.12.0/22", "", METRIC_BASE | 0xFFFFFF), mine]) == OUTER
    assert claimed("0dd0e1", [mine]) is None
    assert use("198.18.8.0/22").owner is None
