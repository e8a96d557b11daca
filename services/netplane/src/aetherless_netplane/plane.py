# SPDX-License-Identifier: Apache-2.0
"""The netplane's state and its life: open what is pinned, adopt what lives, follow the host."""

from __future__ import annotations

import threading
from ctypes import c_uint16
from typing import TYPE_CHECKING

import structlog

from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_netplane import bpffs, firewall, hostnet, links, netns, resolver
from aetherless_netplane.hostchanges import FORWARD, HostChanges, locked
from aetherless_netplane.layout import ROUTE_LIVE, EndpointData, Ipv4, Ipv6, RouteData
from aetherless_netplane.monitor import Monitor
from aetherless_netplane.netlink import IPRoute
from aetherless_netplane.programs import Programs, constants_for
from aetherless_netplane.records import FILE, EndpointRecord, Records, RouteRecord
from aetherless_netplane.tables import Tables
from aetherless_netplane.traffic import Traffic

if TYPE_CHECKING:
    from ipaddress import IPv4Address

    from aetherless_common.settings import Settings
    from aetherless_netplane.addresses import OuterRange

log = structlog.get_logger()


class Plane:
    """Everything that endpoints and routes share. ``lock`` is held for each change.

    Args:
        settings: the orchestrator's settings.
    """

    outer: OuterRange
    programs: Programs
    tables: Tables
    traffic: Traffic

    def __init__(self, settings: Settings) -> None:
        self.settings = settings
        self.lock = threading.RLock()
        self.records = Records()
        self.changes = HostChanges(settings.host_changes_path)
        self.host_cookie = netns.cookie()
        self._upstream: IPv4Address | None = None
        self._monitor: Monitor | None = None
        self._records_path = settings.runtime_dir / FILE

    # Life

    def start(self) -> None:
        """Open or make everything; adopt what an earlier process left.

        What runs already is not disturbed: pins are opened again, entries that are right stay.

        Raises:
            FailedPrecondition: the host lacks something (KERNEL_FEATURE_MISSING, BPF_LOAD_FAILED,
                BPF_ATTACH_FAILED, ADDRESS_RANGE_IN_USE, LINK_FAILED).
        """
        self._monitor = Monitor(self.sync_addresses, self.drop_dead, self._follow_resolver)
        with self.lock:
            bpffs.mount(self.settings.bpf_dir)
            self.outer = hostnet.claim(self.settings.orchestrator_id)
            self._load()
            self._adopt()
            self.sync_addresses()
            self.apply_firewall()
            self.programs.attach_hooks(cgroup_v2_mount())
            self.programs.drop_old()
        self.traffic = Traffic(self.tables.traffic.descriptor, self._names)
        self.traffic.start()
        self._monitor.start()

    def stop(self) -> None:
        """End the threads and close descriptors; all that the kernel has stays."""
        if self._monitor is not None:
            self._monitor.stop()
        for part in ("traffic", "programs", "tables"):
            if hasattr(self, part):
                getattr(self, part).stop() if part == "traffic" else getattr(self, part).close()

    def save(self) -> None:
        """Store the records."""
        self.records.write(self._records_path)

    # Following the host

    def sync_addresses(self) -> None:
        """Let the hooks know the host's addresses of now."""
        ipv4, ipv6 = hostnet.host_addresses()
        self.tables.sync_host_addresses(ipv4, ipv6)

    def drop_dead(self) -> None:
        """Forget endpoints whose link is gone; their routes refuse clients from now on."""
        with self.lock:
            dead = [e for e in self.records.endpoints.values() if not self.alive(e)]
            for endpoint in dead:
                log.warning("endpoint lost its link", endpoint=endpoint.name)
                self.forget(endpoint)
            if dead:
                self.save()

    def _follow_resolver(self) -> None:
        """Lead DNS to another upstream when the host's resolver changed."""
        if resolver.upstream() != self._upstream:
            with self.lock:
                self.apply_firewall()

    def apply_firewall(self) -> None:
        """Turn forwarding on and load the table, as far as that is not so already."""
        name = self.settings.nft_table
        self._upstream = resolver.upstream()
        with locked(FORWARD):
            others = firewall.others_enabled_forwarding(name)
            was_off = self.changes.enable_forwarding(others_enabled=others)
            table = firewall.Table(name, self.link_prefix, self.outer, self._upstream, was_off)
            if firewall.apply(table):
                log.info("nftables table loaded", table=name, upstream=str(self._upstream))

    # Endpoints as the kernel has them

    @property
    def link_prefix(self) -> str:
        """What the names of the endpoints' host links begin with."""
        return self.settings.link_name(0)[:-1]

    def alive(self, endpoint: EndpointRecord) -> bool:
        """Tell whether an endpoint's link is there."""
        found = links.ours(self.link_prefix)
        return found.get(self.settings.link_name(endpoint.slot)) == endpoint.ifindex

    def endpoint_data(self, endpoint: EndpointRecord, route_port: int) -> EndpointData:
        """Return an endpoint as the programs see it."""
        return EndpointData(
            outer_ipv4=Ipv4(*self.outer.ipv4_of(endpoint.slot).packed),
            outer_ipv6=Ipv6(*self.outer.ipv6_of(endpoint.slot).packed),
            slot=endpoint.slot,
            trigger_port=endpoint.trigger_port,
            route_port=route_port,
        )

    def forget(self, endpoint: EndpointRecord) -> None:
        """Take an endpoint out of maps and records; the caller saves."""
        self.tables.delete_endpoint(endpoint.ifindex, endpoint.slot, endpoint.cookie)
        del self.records.endpoints[endpoint.endpoint_id]
        route = self.records.route_to(endpoint.endpoint_id)
        if route is not None:
            route.endpoint_id = ""
            self.publish_route(route)

    def publish_route(self, route: RouteRecord) -> None:
        """Write a route's entry as its record is."""
        data = RouteData(flags=route.families)  # the numbers of the contract are the flags
        endpoint = self.records.endpoints.get(route.endpoint_id)
        if endpoint is not None:
            data.flags |= ROUTE_LIVE
            data.outer_ipv4 = Ipv4(*self.outer.ipv4_of(endpoint.slot).packed)
            data.outer_ipv6 = Ipv6(*self.outer.ipv6_of(endpoint.slot).packed)
        self.tables.put_route(route.port, data)
        if endpoint is not None:
            self.tables.set_route_port(endpoint.ifindex, route.port)

    # Adoption

    def _load(self) -> None:
        constants = constants_for(self.host_cookie, self.outer)
        objects = self.settings.prefix / "bpf"
        self.programs = Programs(self.settings.bpf_dir, objects, constants)
        if self.programs.load():
            log.info("BPF programs loaded")
        self.tables = Tables(self.programs.maps_dir)

    def _adopt(self) -> None:
        """Make records, maps and links agree; the kernel's truth wins."""
        self.records = Records.read(self._records_path)
        self._drop_strays()
        self.drop_dead()
        for endpoint in self.records.endpoints.values():
            route = self.records.route_to(endpoint.endpoint_id)
            data = self.endpoint_data(endpoint, route.port if route else 0)
            self.tables.restore_endpoint(endpoint.ifindex, data, endpoint.cookie)
            link = self.settings.link_name(endpoint.slot)
            self.programs.attach_tc(endpoint.ifindex, link)
        for route in self.records.routes.values():
            self.publish_route(route)
            self.changes.reserve_port(route.port)
        log.info("adopted", endpoints=len(self.records.endpoints), routes=len(self.records.routes))

    def _drop_strays(self) -> None:
        """Undo what was half done: links, map entries and ports that no record knows."""
        known = {self.settings.link_name(e.slot) for e in self.records.endpoints.values()}
        with IPRoute() as ipr:
            for name, ifindex in links.ours(self.link_prefix).items():
                if name not in known:
                    log.warning("removing a link that no endpoint has", link=name)
                    links.delete(ipr, ifindex)
        indexes = {e.ifindex for e in self.records.endpoints.values()}
        cookies = {e.cookie for e in self.records.endpoints.values()}
        for index in self.tables.endpoints.keys():  # noqa: SIM118  # not a dict
            if index.value not in indexes:
                self.tables.endpoints.delete(index)
        for cookie in self.tables.sandboxes.keys():  # noqa: SIM118
            if cookie.value not in cookies:
                self.tables.sandboxes.delete(cookie)
        self._drop_stray_routes()

    def _drop_stray_routes(self) -> None:
        ports = {key.value for key in self.tables.routes.keys()}  # noqa: SIM118
        for port in ports - self.records.routes.keys():
            self.tables.delete_route(c_uint16(port).value)
        for port in set(self.changes.reserved_ports()) - self.records.routes.keys():
            self.changes.release_port(port)

    def _names(self, slot: int, port: int) -> tuple[str, str]:
        """Return the endpoint's name and the function's id for a record of the programs."""
        with self.lock:
            endpoint = self.records.endpoint_of_slot(slot)
            route = self.records.routes.get(port)
        return endpoint.name if endpoint else "", route.function_id if route else ""
