# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802  # RPCs are named by the contract
"""A netplane over a fake host. What it refuses, the real one refuses."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.netplane.v1 import (
    endpoint_pb2,
    netplane_service_pb2,
    netplane_service_pb2_grpc,
    route_pb2,
)
from aetherless_common.errors import AlreadyExists, FailedPrecondition, NotFound
from aetherless_common.pagination import paginate
from aetherless_common.watch import Broadcaster

if TYPE_CHECKING:
    from collections.abc import Iterator

    from .fake_host import FakeHost


class FakeNetplane(netplane_service_pb2_grpc.NetplaneServiceServicer):
    """Endpoints and routes of a fake host."""

    def __init__(self, host: FakeHost) -> None:
        self.host = host

    def register(self, server: Any) -> None:
        """See aetherless_common.server.Service."""
        netplane_service_pb2_grpc.add_NetplaneServiceServicer_to_server(self, server)

    def start(self) -> None:
        """Take new watches."""
        self.host.answers = Broadcaster()

    def stop(self) -> None:
        """End the watches."""
        self.host.answers.close()

    def CheckHost(self, _: Any, __: Any) -> Any:
        """Find nothing wrong."""
        return netplane_service_pb2.CheckHostResponse()

    def GetRouteStats(self, request: Any, _: Any) -> Any:
        """Return counters that counted nothing."""
        if int(request.name.removeprefix("routes/")) not in self.host.routes:
            raise NotFound("ROUTE_NOT_FOUND", request.name, {"route": request.name})
        stats = route_pb2.RouteStats(route=request.name)
        return netplane_service_pb2.GetRouteStatsResponse(stats=stats)

    def AttachEndpoint(self, request: Any, _: Any) -> Any:
        """Give a sandbox that lives its link."""
        host = self.host
        host.begin("AttachEndpoint")
        name, netns = request.endpoint_id, request.endpoint.netns_path
        with host.lock:
            if netns not in {each.netns_path for each in host.instances.values()}:
                raise FailedPrecondition("NETNS_UNREACHABLE", netns, {"netns": netns, "errno": 2})
            endpoint = host.endpoints.get(name)
            if endpoint and endpoint.netns_path != netns:
                raise AlreadyExists("ENDPOINT_EXISTS", name, {"endpoint": name})
            if endpoint is None:
                slot = next(host.counter)
                endpoint = endpoint_pb2.Endpoint(
                    name=f"endpoints/{name}",
                    netns_path=netns,
                    trigger_port=request.endpoint.trigger_port,
                    host_link=f"ae{slot}",
                    outer_ipv4=f"198.18.0.{slot % 250}",
                    inner_ipv4="198.18.255.1",
                    inner_ipv6="fd00:ae:ffff::1",
                    state_map_path="/bpf/endpoint_state",
                    state_map_slot=slot,
                )
                host.endpoints[name] = endpoint
        host.after("AttachEndpoint")
        return netplane_service_pb2.AttachEndpointResponse(endpoint=endpoint)

    def DetachEndpoint(self, request: Any, _: Any) -> Any:
        """Take a link away that no route leads to."""
        self.host.begin("DetachEndpoint")
        with self.host.lock:
            for route in self.host.routes.values():
                if route.endpoint == request.name:
                    metadata = {"endpoint": request.name, "route": route.name}
                    raise FailedPrecondition("ENDPOINT_IN_USE", request.name, metadata)
            self.host.endpoints.pop(request.name.removeprefix("endpoints/"), None)
        self.host.after("DetachEndpoint")
        return netplane_service_pb2.DetachEndpointResponse()

    def ListEndpoints(self, request: Any, _: Any) -> Any:
        """List endpoints."""
        with self.host.lock:
            found = list(self.host.endpoints.values())
        page, token = paginate(found, lambda e: e.name, request.page_size, request.page_token)
        return netplane_service_pb2.ListEndpointsResponse(endpoints=page, next_page_token=token)

    def SetRoute(self, request: Any, _: Any) -> Any:
        """Lead a port to an endpoint."""
        host = self.host
        host.begin("SetRoute")
        route = request.route
        with host.lock:
            if route.port in host.foreign_ports:
                metadata = {"port": route.port, "process": "other", "pid": 99}
                raise FailedPrecondition("PORT_IN_USE", f"port {route.port} is taken", metadata)
            if route.endpoint and route.endpoint.removeprefix("endpoints/") not in host.endpoints:
                raise NotFound("ENDPOINT_NOT_FOUND", route.endpoint, {"endpoint": route.endpoint})
            route.name = f"routes/{route.port}"
            host.routes[route.port] = route
        host.after("SetRoute")
        return netplane_service_pb2.SetRouteResponse(route=route)

    def ListRoutes(self, request: Any, _: Any) -> Any:
        """List routes."""
        with self.host.lock:
            found = list(self.host.routes.values())
        page, token = paginate(found, lambda r: r.name, request.page_size, request.page_token)
        return netplane_service_pb2.ListRoutesResponse(routes=page, next_page_token=token)

    def DeleteRoute(self, request: Any, _: Any) -> Any:
        """Free a port."""
        self.host.begin("DeleteRoute")
        with self.host.lock:
            if self.host.routes.pop(int(request.name.removeprefix("routes/")), None) is None:
                raise NotFound("ROUTE_NOT_FOUND", request.name, {"route": request.name})
        self.host.after("DeleteRoute")
        return netplane_service_pb2.DeleteRouteResponse()

    def WatchTraffic(self, _: Any, context: Any) -> Iterator[Any]:
        """Stream first answers."""
        with self.host.answers.subscribe() as answers:
            context.add_callback(answers.close)
            yield from answers
