# SPDX-License-Identifier: Apache-2.0
"""The pinned maps, by what they mean to the netplane."""

from __future__ import annotations

import errno
from contextlib import contextmanager
from ctypes import c_uint8, c_uint16, c_uint32, c_uint64
from typing import TYPE_CHECKING

from aetherless_netplane import errors
from aetherless_netplane.layout import (
    MAX_SLOTS,
    CountersData,
    EndpointData,
    HistogramData,
    Ipv4,
    Ipv6,
    RouteData,
    SandboxData,
    StateData,
)
from aetherless_netplane.libbpf import BpfError
from aetherless_netplane.maps import BpfMap, PerCpuMap

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator
    from ipaddress import IPv4Address, IPv6Address
    from pathlib import Path

MAX_HOST_ADDRESSES = 1024


class Tables:
    """Every map that the service reads or writes.

    Args:
        folder: where the maps are pinned.
    """

    def __init__(self, folder: Path) -> None:
        def path(name: str) -> str:
            return str(folder / name)

        self.endpoints = BpfMap(path("endpoints"), c_uint32, EndpointData)
        self.links = BpfMap(path("links"), c_uint32, c_uint32)
        self.states = BpfMap(path("endpoint_state"), c_uint32, StateData)
        self.routes = BpfMap(path("routes"), c_uint16, RouteData)
        self.sandboxes = BpfMap(path("sandboxes"), c_uint64, SandboxData)
        self.host_ipv4 = BpfMap(path("host_ipv4"), Ipv4, c_uint8)
        self.host_ipv6 = BpfMap(path("host_ipv6"), Ipv6, c_uint8)
        self.counters = PerCpuMap(path("route_counters"), c_uint16, CountersData)
        self.histograms = BpfMap(path("route_histograms"), c_uint16, HistogramData)
        self.traffic = BpfMap(path("traffic"), c_uint32, c_uint32)

    def close(self) -> None:
        """Close the descriptors; the maps stay."""
        for table in vars(self).values():
            table.close()

    # Endpoints

    def put_endpoint(self, ifindex: int, data: EndpointData, cookie: int) -> None:
        """Make an endpoint known to the programs: before its link carries the first packet."""
        self.states.put(c_uint32(data.slot), StateData())
        self.restore_endpoint(ifindex, data, cookie)

    def restore_endpoint(self, ifindex: int, data: EndpointData, cookie: int) -> None:
        """Write an endpoint's entries as they should be; what it publishes stays."""
        with _full_is_typed("endpoints", MAX_SLOTS):
            self.endpoints.put(c_uint32(ifindex), data)
            self.links.put(c_uint32(data.slot), c_uint32(ifindex))
            if self.sandboxes.get(c_uint64(cookie)) is None:
                self.sandboxes.put(c_uint64(cookie), SandboxData(trigger_port=data.trigger_port))

    def delete_endpoint(self, ifindex: int, slot: int, cookie: int) -> None:
        """Forget an endpoint."""
        self.sandboxes.delete(c_uint64(cookie))
        self.links.put(c_uint32(slot), c_uint32(0))
        self.endpoints.delete(c_uint32(ifindex))
        self.states.put(c_uint32(slot), StateData())

    def set_route_port(self, ifindex: int, port: int) -> None:
        """Let an endpoint's traffic count for a route; 0 for none."""
        data = self.endpoints.get(c_uint32(ifindex))
        if data is not None and data.route_port != port:
            data.route_port = port
            self.endpoints.put(c_uint32(ifindex), data)

    # Routes

    def put_route(self, port: int, data: RouteData) -> None:
        """Make or change a route; its counters begin at zero when it is new."""
        with _full_is_typed("routes", MAX_SLOTS):
            if self.histograms.get(c_uint16(port)) is None:
                self.histograms.put(c_uint16(port), HistogramData())
                self.counters.put_zero(c_uint16(port))
            self.routes.put(c_uint16(port), data)

    def delete_route(self, port: int) -> None:
        """Forget a route and its counters."""
        self.routes.delete(c_uint16(port))
        self.counters.delete(c_uint16(port))
        self.histograms.delete(c_uint16(port))

    def totals(self, port: int) -> CountersData:
        """Return a route's counters, summed over the CPUs."""
        total = CountersData()
        for one in self.counters.each(c_uint16(port)):
            for name, _ in CountersData._fields_:
                setattr(total, name, getattr(total, name) + getattr(one, name))
        return total

    def buckets(self, port: int) -> list[int]:
        """Return a route's histogram of first-byte times; empty when there is no such route."""
        data = self.histograms.get(c_uint16(port))
        return list(data.buckets) if data is not None else []

    # The host's addresses

    def sync_host_addresses(self, ipv4: Iterable[IPv4Address], ipv6: Iterable[IPv6Address]) -> None:
        """Let the hooks know which addresses are the host's."""
        wanted: tuple[set[bytes], set[bytes]] = (
            {a.packed for a in ipv4},
            {a.packed for a in ipv6},
        )
        for table, kind, packed in (
            (self.host_ipv4, Ipv4, wanted[0]),
            (self.host_ipv6, Ipv6, wanted[1]),
        ):
            present = {bytes(key) for key in table.keys()}  # noqa: SIM118  # not a dict
            with _full_is_typed("host addresses", MAX_HOST_ADDRESSES):
                for key in packed - present:
                    table.put(kind(*key), c_uint8(1))
            for key in present - packed:
                table.delete(kind(*key))


@contextmanager
def _full_is_typed(name: str, entries: int) -> Iterator[None]:
    """Turn E2BIG into BPF_MAP_FULL."""
    try:
        yield
    except BpfError as error:
        if error.errno != errno.E2BIG:
            raise
        raise errors.bpf_map_full(name, entries) from error
