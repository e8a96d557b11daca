# SPDX-License-Identifier: Apache-2.0
"""The table's text, and that the kernel takes it; what it does is tested live."""

from __future__ import annotations

from ipaddress import IPv4Address

import pytest

from aetherless_netplane import firewall
from aetherless_netplane.addresses import OuterRange
from aetherless_netplane.firewall import Table


def table(*, upstream: str | None = "192.0.2.53", was_off: bool = True) -> Table:
    """Return a table of a made-up orchestrator."""
    address = IPv4Address(upstream) if upstream else None
    return Table("aether_0dd0e0", "ae0dd0e0", OuterRange(3), address, was_off)


def test_the_old_table_goes_in_the_same_step() -> None:
    """One script makes sure there is a table, deletes it and makes it anew."""
    lines = table().script().splitlines()
    assert lines[:3] == [
        "table inet aether_0dd0e0 {}",
        "delete table inet aether_0dd0e0",
        "table inet aether_0dd0e0 {",
    ]


def test_dns_goes_to_the_upstream_by_both_protocols() -> None:
    """Without an upstream there is no such rule."""
    script = table().script()
    for protocol in ("udp", "tcp"):
        assert f"{protocol} dport 53 dnat ip to 192.0.2.53:53" in script
    assert "dnat ip to" not in table(upstream=None).script()


def test_only_who_turned_forwarding_on_stops_others() -> None:
    """On a router of somebody's, other people's packets pass as before."""
    rule = "ip saddr != 198.18.0.0/15 ip daddr != 198.18.0.0/15 drop"
    assert rule in table().script()
    assert rule not in table(was_off=False).script()
    assert firewall.FORWARDING_MARK in table().marks()
    assert firewall.FORWARDING_MARK not in table(was_off=False).marks()


def test_the_digest_tells_tables_apart() -> None:
    """Another upstream is another table; the same input is the same."""
    assert table().marks() == table().marks()
    assert table().marks() != table(upstream="192.0.2.54").marks()


@pytest.mark.root
def test_the_kernel_takes_the_table_once() -> None:
    """It is loaded, known the second time, replaced when it differs, and removed."""
    name = table().name
    try:
        assert firewall.apply(table())
        assert not firewall.apply(table())
        assert firewall.others_enabled_forwarding("aether_000000")
        assert firewall.apply(table(was_off=False))
    finally:
        firewall.remove(name)
        firewall.remove(name)
    tables = [item["table"]["name"] for item in firewall.listed("tables") if "table" in item]
    assert name not in tables
