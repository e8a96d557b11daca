# SPDX-License-Identifier: Apache-2.0
"""The RPCs: decode, one call of the domain, encode."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from aetherless.netplane.v1 import (
    endpoint_pb2,
    netplane_service_pb2,
    netplane_service_pb2_grpc,
    route_pb2,
)
from aetherless_common.pagination import paginate
from aetherless_netplane import addresses, checks, errors
from aetherless_netplane.records import RouteRecord

if TYPE_CHECKING:
    from collections.abc import Iterator

    import grpc

    from aetherless_netplane.endpoints import Endpoints
    from aetherless_netplane.plane import Plane
    from aetherless_netplane.records import EndpointRecord
    from aetherless_netplane.routes import Routes
    from aetherless_netplane.traffic import Answer

ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,99}")
HIGHEST_PORT = 65535


class NetplaneServicer(netplane_service_pb2_grpc.NetplaneServiceServicer):
    """NetplaneService.

    Args:
        plane: the shared state.
        endpoints: the endpoints.
        routes: the routes.
    """

    def __init__(self, plane: Plane, endpoints: Endpoints, routes: Routes) -> None:
        self._plane = plane
        self._endpoints = endpoints
        self._routes = routes

    # The names are the contract's.
    # ruff: noqa: N802

    def CheckHost(
        self, _request: netplane_service_pb2.CheckHostRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.CheckHostResponse:
        """Check what the network needs of this host."""
        found = checks.check_host(self._plane.settings)
        return netplane_service_pb2.CheckHostResponse(
            checks=[netplane_service_pb2.HostCheck(**check._asdict()) for check in found]
        )

    def AttachEndpoint(
        self, request: netplane_service_pb2.AttachEndpointRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.AttachEndpointResponse:
        """Attach a sandbox's network namespace."""
        endpoint_id = _checked_id("endpoint_id", request.endpoint_id)
        port = request.endpoint.trigger_port  # zero for a function that does not listen
        if port:
            _checked_port("endpoint.trigger_port", port)
        path = request.endpoint.netns_path
        if not path.startswith("/"):
            raise errors.invalid_argument("endpoint.netns_path", "must be an absolute path")
        endpoint = self._endpoints.attach(endpoint_id, path, port)
        return netplane_service_pb2.AttachEndpointResponse(endpoint=self._endpoint(endpoint))

    def DetachEndpoint(
        self, request: netplane_service_pb2.DetachEndpointRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.DetachEndpointResponse:
        """Take an endpoint away."""
        self._endpoints.detach(_endpoint_id("name", request.name))
        return netplane_service_pb2.DetachEndpointResponse()

    def ListEndpoints(
        self, request: netplane_service_pb2.ListEndpointsRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.ListEndpointsResponse:
        """List the endpoints."""
        listed = self._endpoints.list()
        page, token = paginate(listed, lambda e: e.name, request.page_size, request.page_token)
        return netplane_service_pb2.ListEndpointsResponse(
            endpoints=[self._endpoint(endpoint) for endpoint in page], next_page_token=token
        )

    def SetRoute(
        self, request: netplane_service_pb2.SetRouteRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.SetRouteResponse:
        """Make or change a route."""
        route = self._routes.set(_decode_route(request.route))
        return netplane_service_pb2.SetRouteResponse(route=_encode_route(route))

    def ListRoutes(
        self, request: netplane_service_pb2.ListRoutesRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.ListRoutesResponse:
        """List the routes."""
        listed = self._routes.list()
        page, token = paginate(
            listed, lambda r: f"{r.port:05}", request.page_size, request.page_token
        )
        return netplane_service_pb2.ListRoutesResponse(
            routes=[_encode_route(route) for route in page], next_page_token=token
        )

    def DeleteRoute(
        self, request: netplane_service_pb2.DeleteRouteRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.DeleteRouteResponse:
        """Delete a route."""
        self._routes.delete(_route_port(request.name))
        return netplane_service_pb2.DeleteRouteResponse()

    def GetRouteStats(
        self, request: netplane_service_pb2.GetRouteStatsRequest, _context: grpc.ServicerContext
    ) -> netplane_service_pb2.GetRouteStatsResponse:
        """Return a route's counters."""
        port = _route_port(request.name)
        stats = self._routes.stats(port)
        counted = {name: getattr(stats.counters, name) for name, _ in stats.counters._fields_}
        return netplane_service_pb2.GetRouteStatsResponse(
            stats=route_pb2.RouteStats(
                route=f"routes/{port}",
                first_byte_p50=_duration(stats.first_byte_p50_ns),
                first_byte_p99=_duration(stats.first_byte_p99_ns),
                **counted,
            )
        )

    def WatchTraffic(
        self, _request: netplane_service_pb2.WatchTrafficRequest, context: grpc.ServicerContext
    ) -> Iterator[netplane_service_pb2.WatchTrafficResponse]:
        """Stream the first answer of each wake from now on."""
        with self._plane.traffic.answers.subscribe() as subscription:
            context.add_callback(subscription.close)
            context.send_initial_metadata(())  # the caller may rely on being subscribed
            for answer in subscription:
                yield netplane_service_pb2.WatchTrafficResponse(first_answer=_encode_answer(answer))

    def _endpoint(self, endpoint: EndpointRecord) -> endpoint_pb2.Endpoint:
        outer = self._plane.outer
        return endpoint_pb2.Endpoint(
            name=endpoint.name,
            netns_path=endpoint.netns_path,
            trigger_port=endpoint.trigger_port,
            host_link=self._plane.settings.link_name(endpoint.slot),
            outer_ipv4=str(outer.ipv4_of(endpoint.slot)),
            outer_ipv6=str(outer.ipv6_of(endpoint.slot)),
            inner_ipv4=str(addresses.INNER_IPV4),
            inner_ipv6=str(addresses.INNER_IPV6),
            state_map_path=self._plane.tables.states.path,
            state_map_slot=endpoint.slot,
            state=endpoint_pb2.EndpointState.ValueType(self._endpoints.state(endpoint)),
        )


def _checked_id(field: str, text: str) -> str:
    if not ID.fullmatch(text):
        raise errors.invalid_argument(field, "must be 1 to 100 of A-Z a-z 0-9 _ . -")
    return text


def _checked_port(field: str, port: int) -> int:
    if not 1 <= port <= HIGHEST_PORT:
        raise errors.invalid_argument(field, f"must be from 1 to {HIGHEST_PORT}, is {port}")
    return port


def _endpoint_id(field: str, name: str) -> str:
    """Return the id in the name of an endpoint."""
    collection, _, endpoint_id = name.partition("/")
    if collection != "endpoints":
        raise errors.invalid_argument(field, "must be endpoints/{endpoint}")
    return _checked_id(field, endpoint_id)


def _route_port(name: str) -> int:
    """Return the port in the name of a route."""
    collection, _, port = name.partition("/")
    if collection != "routes" or not port.isdecimal():
        raise errors.invalid_argument("name", "must be routes/{port}")
    return _checked_port("name", int(port))


def _decode_route(route: route_pb2.Route) -> RouteRecord:
    if route.families not in route_pb2.RouteFamilies.values() or not route.families:
        raise errors.invalid_argument("route.families", "must be set")
    return RouteRecord(
        port=_checked_port("route.port", route.port),
        function_id=_checked_id("route.function_id", route.function_id),
        endpoint_id=_endpoint_id("route.endpoint", route.endpoint) if route.endpoint else "",
        families=route.families,
    )


def _encode_route(route: RouteRecord) -> route_pb2.Route:
    return route_pb2.Route(
        name=route.name,
        port=route.port,
        function_id=route.function_id,
        endpoint=f"endpoints/{route.endpoint_id}" if route.endpoint_id else "",
        families=route_pb2.RouteFamilies.ValueType(route.families),
    )


def _encode_answer(answer: Answer) -> route_pb2.FirstAnswer:
    when = Timestamp()
    when.FromNanoseconds(answer.first_packet_unix_ns)
    return route_pb2.FirstAnswer(
        endpoint=answer.endpoint,
        function_id=answer.function_id,
        first_packet_time=when,
        first_byte=_duration(answer.first_byte_ns),
    )


def _duration(nanoseconds: int | None) -> Duration | None:
    if nanoseconds is None:
        return None
    duration = Duration()
    duration.FromNanoseconds(nanoseconds)
    return duration
