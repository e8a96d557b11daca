# SPDX-License-Identifier: Apache-2.0
"""The structs of bpf/include/structs.h. A test compares both by the objects' BTF.

Addresses are in network byte order (as ``ipaddress`` packs them), ports in host byte order.
"""

from __future__ import annotations

from ctypes import Structure, c_uint8, c_uint16, c_uint32, c_uint64

HISTOGRAM_BUCKETS = 768
HISTOGRAM_SUB = 32
HISTOGRAM_UNIT_NS = 1024
MAX_SLOTS = 1024
HOST_SLOT = 1

ROUTE_IPV4 = 1
ROUTE_IPV6 = 2
ROUTE_LIVE = 4
ROUTE_CLAIM = 8

Ipv4 = c_uint8 * 4
Ipv6 = c_uint8 * 16


class SettingsData(Structure):
    """struct settings: the read-only data of each object."""

    _fields_ = (
        ("host_cookie", c_uint64),
        ("outer_ipv4", Ipv4),
        ("outer_ipv6", Ipv6),
        ("reserved", c_uint32),
    )


class EndpointData(Structure):
    """struct endpoint: the sandbox behind a host link."""

    _fields_ = (
        ("outer_ipv4", Ipv4),
        ("outer_ipv6", Ipv6),
        ("slot", c_uint32),
        ("trigger_port", c_uint16),
        ("route_port", c_uint16),
    )


class StateData(Structure):
    """struct endpoint_state: what a sandbox publishes."""

    _fields_ = (
        ("state", c_uint32),
        ("generation", c_uint32),
        ("first_syn_ns", c_uint64),
        ("first_answer_ns", c_uint64),
        ("reserved", c_uint64),
    )


class RouteData(Structure):
    """struct route: where the clients of a port are led."""

    _fields_ = (("outer_ipv4", Ipv4), ("outer_ipv6", Ipv6), ("flags", c_uint32))


class SandboxData(Structure):
    """struct sandbox: a sandbox as hooks on its sockets meet it."""

    _fields_ = (("trigger_port", c_uint32), ("flags", c_uint32))


class CountersData(Structure):
    """struct counters: one route on one CPU."""

    _fields_ = (
        ("connections", c_uint64),
        ("requests", c_uint64),
        ("resets", c_uint64),
        ("received_bytes", c_uint64),
        ("sent_bytes", c_uint64),
        ("answered_wakes", c_uint64),
    )


class HistogramData(Structure):
    """struct histogram: first-byte times of one route."""

    _fields_ = (("buckets", c_uint64 * HISTOGRAM_BUCKETS),)


class FirstAnswerData(Structure):
    """struct first_answer: the record of an answered wake."""

    _fields_ = (
        ("first_syn_ns", c_uint64),
        ("first_answer_ns", c_uint64),
        ("slot", c_uint32),
        ("generation", c_uint32),
        ("route_port", c_uint32),
        ("reserved", c_uint32),
    )


# By their names in the objects' BTF, which lacks first_answer: a ring buffer has no value type.
STRUCTS: dict[str, type[Structure]] = {
    "settings": SettingsData,
    "endpoint": EndpointData,
    "endpoint_state": StateData,
    "route": RouteData,
    "sandbox": SandboxData,
    "counters": CountersData,
    "histogram": HistogramData,
}
