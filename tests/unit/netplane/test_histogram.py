# SPDX-License-Identifier: Apache-2.0
"""Quantiles of the kernel's histogram; that the kernel fills it so is tests/bpf's."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from aetherless_netplane.histogram import bucket_middle_ns, quantile_ns
from aetherless_netplane.layout import HISTOGRAM_BUCKETS


def bucket_of(nanoseconds: int) -> int:
    """Return the bucket as bpf/include/account.h computes it."""
    units = nanoseconds >> 10
    if units < 32:
        return units
    shift = units.bit_length() - 6
    return min((shift + 1) * 32 + (units >> shift & 31), HISTOGRAM_BUCKETS - 1)


@given(st.integers(min_value=0, max_value=270 * 10**9))
def test_a_bucket_s_middle_is_near_every_value_in_it(nanoseconds: int) -> None:
    """The error is at most half a bucket: 1/64 of the value, or half a unit."""
    error = abs(bucket_middle_ns(bucket_of(nanoseconds)) - nanoseconds)
    assert error <= max(nanoseconds / 64, 512) + 1


def test_buckets_are_contiguous() -> None:
    """Each bucket's middle lies above its predecessor's."""
    middles = [bucket_middle_ns(bucket) for bucket in range(HISTOGRAM_BUCKETS)]
    assert middles == sorted(set(middles))


def test_nothing_has_no_quantile() -> None:
    """Before the first wake there is no median."""
    assert quantile_ns([], 0.5) is None
    assert quantile_ns([0] * HISTOGRAM_BUCKETS, 0.5) is None


@given(st.lists(st.integers(min_value=1, max_value=10**10), min_size=1, max_size=300))
def test_quantiles_are_those_of_the_values(values: list[int]) -> None:
    """The median and the 99th percentile agree with the sorted values, within a bucket."""
    buckets = [0] * HISTOGRAM_BUCKETS
    for value in values:
        buckets[bucket_of(value)] += 1
    for share in (0.5, 0.99):
        exact = sorted(values)[max(0, -(-len(values) * int(share * 100) // 100) - 1)]
        found = quantile_ns(buckets, share)
        assert found is not None
        assert abs(found - exact) <= exact / 32 + 1024
