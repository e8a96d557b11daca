# SPDX-License-Identifier: Apache-2.0
"""Ranges do not overlap, keep clear of what is used inside, and hand out each slot once."""

from __future__ import annotations

from itertools import combinations

from aetherless_netplane.addresses import (
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    INNER_IPV4,
    INNER_IPV6,
    OUTER_IPV4,
    RANGES,
    RESOLVER_IPV4,
    OuterRange,
    candidates,
    free_slot,
)


def test_ranges_are_disjoint_and_clear_of_inner_addresses() -> None:
    """No orchestrator's address is another's, nor one that sandboxes have inside."""
    ranges = [OuterRange(index) for index in range(RANGES)]
    for one, other in combinations(ranges, 2):
        assert not one.ipv4.overlaps(other.ipv4)
        assert not one.ipv6.overlaps(other.ipv6)
    for outer in ranges:
        assert outer.ipv4.subnet_of(OUTER_IPV4)
        assert not any(a in outer.ipv4 for a in (INNER_IPV4, GATEWAY_IPV4, RESOLVER_IPV4))
        assert not any(a in outer.ipv6 for a in (INNER_IPV6, GATEWAY_IPV6))


def test_the_last_range_ends_below_198_18_252_0() -> None:
    """What is above is for addresses inside."""
    assert str(OuterRange(RANGES - 1).ipv4) == "198.18.248.0/22"


def test_a_slot_is_the_address_s_last_bits() -> None:
    """The programs find a slot by masking an address."""
    outer = OuterRange(7)
    for slot in (1, 2, 1022):
        assert int(outer.ipv4_of(slot)) & 1023 == slot
        assert int(outer.ipv6_of(slot)) & 0xFFFF == slot
    assert (outer.host_ipv4, outer.host_ipv6) == (outer.ipv4_of(1), outer.ipv6_of(1))


def test_the_id_chooses_the_first_candidate_and_all_follow() -> None:
    """Two runtime folders usually get different ranges; each range is tried once."""
    first = next(candidates("00002a"))
    assert first.index == 42
    assert {outer.index for outer in candidates("abcdef")} == set(range(RANGES))


def test_slots_are_given_from_the_lowest() -> None:
    """Network, host and broadcast address are nobody's slot."""
    assert free_slot(set()) == 2
    assert free_slot({2, 3, 5}) == 4
    assert free_slot(set(range(2, 1022))) == 1022
    assert free_slot(set(range(2, 1023))) is None
