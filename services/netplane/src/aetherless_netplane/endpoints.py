# SPDX-License-Identifier: Apache-2.0
"""Endpoints: attaching a sandbox's network namespace, and taking it away again."""

from __future__ import annotations

import os
from ctypes import c_uint32
from ipaddress import ip_network
from typing import TYPE_CHECKING

from aetherless_netplane import clients, errors, libbpf, links, netns
from aetherless_netplane.addresses import free_slot
from aetherless_netplane.layout import MAX_SLOTS
from aetherless_netplane.libbpf import BpfError
from aetherless_netplane.netlink import IPRoute
from aetherless_netplane.records import EndpointRecord

if TYPE_CHECKING:
    from aetherless_netplane.plane import Plane


class Endpoints:
    """The endpoints of one orchestrator.

    Args:
        plane: what is shared.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def attach(self, endpoint_id: str, netns_path: str, trigger_port: int) -> EndpointRecord:
        """Give a sandbox its link and addresses, with the gate open.

        Raises:
            FailedPrecondition: NETNS_UNREACHABLE, LINK_FAILED, BPF_ATTACH_FAILED.
            AlreadyExists: ENDPOINT_EXISTS.
            ResourceExhausted: BPF_MAP_FULL, all slots are taken.
        """
        namespace = netns.open_namespace(netns_path)
        try:
            cookie = netns.run_inside(namespace, netns_path, netns.cookie)
            if cookie == self._plane.host_cookie:
                raise errors.invalid_argument("endpoint.netns_path", "is the host's own namespace")
            with self._plane.lock:
                existing = self._existing(endpoint_id, cookie, trigger_port)
                if existing is not None:
                    return existing
                return self._create(
                    EndpointRecord(
                        endpoint_id=endpoint_id,
                        netns_path=netns_path,
                        cookie=cookie,
                        trigger_port=trigger_port,
                        slot=self._free_slot(),
                        ifindex=0,
                    ),
                    namespace,
                )
        finally:
            os.close(namespace)

    def detach(self, endpoint_id: str) -> None:
        """Take an endpoint away, if it is there.

        Raises:
            FailedPrecondition: ENDPOINT_IN_USE, LINK_FAILED.
        """
        plane = self._plane
        with plane.lock:
            endpoint = plane.records.endpoints.get(endpoint_id)
            if endpoint is None:
                return
            route = plane.records.route_to(endpoint_id)
            if route is not None:
                raise errors.endpoint_in_use(endpoint.name, route.name)
            plane.forget(endpoint)
            plane.save()
        # The kernel takes tens of milliseconds for it, which nobody else shall wait for. A crash
        # before its end leaves a link without a record, which the next start removes.
        self._end_clients(endpoint)
        with IPRoute() as ipr:
            links.delete(ipr, endpoint.ifindex)

    def _end_clients(self, endpoint: EndpointRecord) -> None:
        """Reset who still waits for an answer; the link's name keeps the slot taken meanwhile."""
        outer = self._plane.outer
        addresses = (outer.ipv4_of(endpoint.slot), outer.ipv6_of(endpoint.slot))
        with links.typed(f"ending the clients of {endpoint.name}"):
            clients.end_clients([ip_network(address) for address in addresses])

    def list(self) -> list[EndpointRecord]:
        """Return the endpoints."""
        with self._plane.lock:
            return list(self._plane.records.endpoints.values())

    def state(self, endpoint: EndpointRecord) -> int:
        """Return what a sandbox last published, as EndpointState's number."""
        data = self._plane.tables.states.get(c_uint32(endpoint.slot))
        return data.state if data is not None else 0

    def _existing(self, endpoint_id: str, cookie: int, port: int) -> EndpointRecord | None:
        """Return the endpoint that a repeated call made before; forget one that is dead."""
        endpoint = self._plane.records.endpoints.get(endpoint_id)
        if endpoint is None:
            return None
        if not self._plane.alive(endpoint):
            self._plane.forget(endpoint)
            return None
        if (endpoint.cookie, endpoint.trigger_port) != (cookie, port):
            raise errors.endpoint_exists(endpoint.name)
        return endpoint

    def _free_slot(self) -> int:
        """Return a slot whose link's name is free, too: a detached one may be on its way out."""
        plane = self._plane
        taken = links.taken_slots(plane.link_prefix)
        slot = free_slot(taken | {e.slot for e in plane.records.endpoints.values()})
        if slot is None:
            raise errors.bpf_map_full("endpoints", MAX_SLOTS)
        return slot

    def _create(self, endpoint: EndpointRecord, namespace: int) -> EndpointRecord:
        """Make the link and all that belongs to it; undo it all when a step fails."""
        plane = self._plane
        name = plane.settings.link_name(endpoint.slot)
        with IPRoute() as ipr:
            endpoint.ifindex = links.create_pair(ipr, name, namespace)
            try:
                self._programs(endpoint, name)
                netns.run_inside(namespace, endpoint.netns_path, links.connect_sandbox)
                links.connect_host(ipr, endpoint.ifindex, plane.outer, endpoint.slot)
                plane.records.endpoints[endpoint.endpoint_id] = endpoint
                plane.save()
            except BaseException:
                plane.records.endpoints.pop(endpoint.endpoint_id, None)
                plane.tables.delete_endpoint(endpoint.ifindex, endpoint.slot, endpoint.cookie)
                links.delete(ipr, endpoint.ifindex)
                raise
        return endpoint

    def _programs(self, endpoint: EndpointRecord, name: str) -> None:
        """Put the translation in place before the link is up."""
        plane = self._plane
        links.quiet_ipv6(name)
        data = plane.endpoint_data(endpoint, route_port=0)
        plane.tables.put_endpoint(endpoint.ifindex, data, endpoint.cookie)
        try:
            libbpf.create_clsact(endpoint.ifindex)
        except BpfError as error:
            raise errors.bpf_attach_failed("clsact", name, error) from error
        plane.programs.attach_tc(endpoint.ifindex, name)
