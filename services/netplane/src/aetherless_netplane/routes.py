# SPDX-License-Identifier: Apache-2.0
"""Routes: which endpoint the clients of a trigger port are led to, and what was counted."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_netplane import errors, ports
from aetherless_netplane.histogram import quantile_ns
from aetherless_netplane.layout import ROUTE_CLAIM, RouteData

if TYPE_CHECKING:
    from aetherless_netplane.layout import CountersData
    from aetherless_netplane.plane import Plane
    from aetherless_netplane.records import RouteRecord


@dataclass(frozen=True, slots=True)
class Stats:
    """A route's counters; the times, in nanoseconds, are None before the first wake."""

    counters: CountersData
    first_byte_p50_ns: int | None
    first_byte_p99_ns: int | None


class Routes:
    """The routes of one orchestrator.

    Args:
        plane: what is shared.
    """

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def set(self, route: RouteRecord) -> RouteRecord:
        """Make or change a route, at once for new connections; its counters go on.

        Raises:
            NotFound: ENDPOINT_NOT_FOUND.
            FailedPrecondition: PORT_IN_USE.
            InvalidArgument: INVALID_ARGUMENT, the endpoint's function listens on another port.
            ResourceExhausted: BPF_MAP_FULL.
        """
        plane = self._plane
        with plane.lock:
            self._check_endpoint(route)
            known = plane.records.routes.get(route.port)
            if known is None:
                self._reserve(route.port)
            plane.records.routes[route.port] = route
            plane.publish_route(route)
            plane.save()
        return route

    def delete(self, port: int) -> None:
        """Delete a route and free its port.

        Raises:
            NotFound: ROUTE_NOT_FOUND.
        """
        plane = self._plane
        with plane.lock:
            route = self._get(port)
            endpoint = plane.records.endpoints.get(route.endpoint_id)
            if endpoint is not None:
                plane.tables.set_route_port(endpoint.ifindex, 0)
            plane.tables.delete_route(port)
            del plane.records.routes[port]
            plane.save()
            plane.changes.release_port(port)

    def list(self) -> list[RouteRecord]:
        """Return the routes."""
        with self._plane.lock:
            return list(self._plane.records.routes.values())

    def stats(self, port: int) -> Stats:
        """Return what the kernel counted for a route since it was made.

        Raises:
            NotFound: ROUTE_NOT_FOUND.
        """
        plane = self._plane
        with plane.lock:
            self._get(port)
            buckets = plane.tables.buckets(port)
            counters = plane.tables.totals(port)
        return Stats(counters, quantile_ns(buckets, 0.5), quantile_ns(buckets, 0.99))

    def _get(self, port: int) -> RouteRecord:
        route = self._plane.records.routes.get(port)
        if route is None:
            raise errors.route_not_found(f"routes/{port}")
        return route

    def _check_endpoint(self, route: RouteRecord) -> None:
        if not route.endpoint_id:
            return
        endpoint = self._plane.records.endpoints.get(route.endpoint_id)
        if endpoint is None:
            raise errors.endpoint_not_found(f"endpoints/{route.endpoint_id}")
        if endpoint.trigger_port != route.port:
            problem = f"listens on port {endpoint.trigger_port}, not on {route.port}"
            raise errors.invalid_argument("route.endpoint", problem)

    def _reserve(self, port: int) -> None:
        """Reserve a port that is free; while it is tested its clients are left alone."""
        plane = self._plane
        with ports.held(port):
            plane.tables.put_route(port, RouteData(flags=ROUTE_CLAIM))
            plane.changes.reserve_port(port)
