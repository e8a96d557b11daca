# SPDX-License-Identifier: Apache-2.0
"""What the registry asks of the other services, in the registry's own words."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aetherless.ipc.v1 import channel_pb2, ipc_service_pb2, ipc_service_pb2_grpc
from aetherless.netplane.v1 import (
    endpoint_pb2,
    netplane_service_pb2,
    netplane_service_pb2_grpc,
    route_pb2,
)
from aetherless.snapshotter.v1 import (
    instance_pb2,
    snapshot_pb2,
    snapshotter_service_pb2,
    snapshotter_service_pb2_grpc,
)
from aetherless_common.channels import connect, serves
from aetherless_common.errors import AetherlessError, Unavailable
from aetherless_registry import names, resources
from aetherless_registry.desired import Observed, ObservedInstance, ObservedRoute

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless_common.channels import TypedCall, TypedStream
    from aetherless_common.settings import Settings
    from aetherless_registry.desired import ChannelRules

SERVICES = ("snapshotter", "netplane", "ipc")
PAGE_SIZE = 1000


@dataclass(frozen=True, slots=True)
class World:
    """What the services hold, each thing by its id (a route by its port)."""

    instances: dict[str, instance_pb2.Instance] = field(default_factory=dict)
    endpoints: dict[str, endpoint_pb2.Endpoint] = field(default_factory=dict)
    snapshots: dict[str, snapshot_pb2.Snapshot] = field(default_factory=dict)
    routes: dict[int, route_pb2.Route] = field(default_factory=dict)
    roots: tuple[snapshotter_service_pb2.Root, ...] = ()
    # None while the ipc service does not answer: functions without a channel don't need it.
    channels: dict[str, channel_pb2.Channel] | None = field(default_factory=dict)

    def owners(self) -> set[str]:
        """Return the functions that anything belongs to which the registry named."""
        found = [names.sandbox_owner(name) for name in (*self.instances, *self.endpoints)]
        found += [names.snapshot_owner(name) for name in self.snapshots]
        found += [
            names.sandbox_owner(names.bare(route.endpoint, names.ENDPOINTS))
            for route in self.routes.values()
        ]
        of_roots = {root.function_id for root in self.roots}
        of_channels = {each.function_id for each in (self.channels or {}).values()}
        return {owner.function for owner in found if owner} | of_roots | of_channels

    def observed(self, function_id: str) -> Observed:
        """Return what there is of one function, for the plan."""
        channel = (self.channels or {}).get(function_id)
        return Observed(
            instances={
                name: ObservedInstance(resources.instance_state(each), each.netns_path)
                for name, each in self.instances.items()
                if _is_of(names.sandbox_owner(name), function_id)
            },
            endpoints={
                name: each.netns_path
                for name, each in self.endpoints.items()
                if _is_of(names.sandbox_owner(name), function_id)
            },
            snapshots={
                name: resources.route_families(each)
                for name, each in self.snapshots.items()
                if _is_of(names.snapshot_owner(name), function_id)
            },
            tried=frozenset(
                name for name, each in self.snapshots.items() if each.HasField("trial")
            ),
            roots=frozenset(
                root.revision for root in self.roots if root.function_id == function_id
            ),
            routes={
                port: ObservedRoute(
                    each.function_id, names.bare(each.endpoint, names.ENDPOINTS), each.families
                )
                for port, each in self.routes.items()
            },
            channel=resources.observed_channel(channel) if channel else None,
        )


class Peers:
    """Calls to the services; each fails with the typed error that the service answered.

    Args:
        settings: where their sockets are.
    """

    def __init__(self, settings: Settings) -> None:
        self._channels = {name: connect(settings, name) for name in SERVICES}
        self._snapshotter = snapshotter_service_pb2_grpc.SnapshotterServiceStub(
            self._channels["snapshotter"]
        )
        self._netplane = netplane_service_pb2_grpc.NetplaneServiceStub(self._channels["netplane"])
        self._ipc = ipc_service_pb2_grpc.IpcServiceStub(self._channels["ipc"])

    def close(self) -> None:
        """Close the channels; calls under way fail."""
        for channel in self._channels.values():
            channel.close()

    def answers(self, service: str, timeout_s: float) -> bool:
        """Tell whether a service answers, waiting for it up to ``timeout_s`` seconds."""
        try:
            return serves(self._channels[service], service, timeout_s)
        except AetherlessError:
            return False

    # Observing

    def world(self, function_id: str = "") -> World:
        """Return what there is: of one function, and all endpoints and routes; or everything."""
        request = snapshotter_service_pb2.ListInstancesRequest(function_id=function_id)
        instances = pages(self._snapshotter.ListInstances, request, "instances")
        wanted = snapshotter_service_pb2.ListSnapshotsRequest(function_id=function_id)
        snapshots = pages(self._snapshotter.ListSnapshots, wanted, "snapshots")
        of_roots = snapshotter_service_pb2.ListRootsRequest(function_id=function_id)
        roots = pages(self._snapshotter.ListRoots, of_roots, "roots")
        all_endpoints = netplane_service_pb2.ListEndpointsRequest()
        endpoints = pages(self._netplane.ListEndpoints, all_endpoints, "endpoints")
        all_routes = netplane_service_pb2.ListRoutesRequest()
        routes = pages(self._netplane.ListRoutes, all_routes, "routes")
        return World(
            {names.bare(each.name, names.INSTANCES): each for each in instances},
            {names.bare(each.name, names.ENDPOINTS): each for each in endpoints},
            {names.bare(each.name, names.SNAPSHOTS): each for each in snapshots},
            {each.port: each for each in routes},
            tuple(roots),
            self._all_channels(),
        )

    def _all_channels(self) -> dict[str, channel_pb2.Channel] | None:
        """Return the channels by id; None when the service is not there."""
        request = ipc_service_pb2.ListChannelsRequest()
        try:
            found = list(pages(self._ipc.ListChannels, request, "channels"))
        except Unavailable:
            return None
        return {names.bare(each.name, names.CHANNELS): each for each in found}

    def clones(self, function_id: str) -> list[instance_pb2.Instance]:
        """Return the instances that serve a function."""
        request = snapshotter_service_pb2.ListInstancesRequest(function_id=function_id)
        found = pages(self._snapshotter.ListInstances, request, "instances")
        return [each for each in found if each.role == instance_pb2.INSTANCE_ROLE_CLONE]

    def watch_instances(self) -> TypedStream:
        """Start the stream of all changes of instances, the present state first."""
        request = snapshotter_service_pb2.WatchInstancesRequest()
        stream: Any = self._snapshotter.WatchInstances(request, wait_for_ready=True)
        return stream  # type: ignore[no-any-return]

    def watch_traffic(self) -> TypedStream:
        """Start the stream of first answers."""
        request = netplane_service_pb2.WatchTrafficRequest()
        stream: Any = self._netplane.WatchTraffic(request, wait_for_ready=True)
        return stream  # type: ignore[no-any-return]

    # Sandboxes

    def create_golden(self, name: str, workload: instance_pb2.Workload) -> instance_pb2.Instance:
        """Make the sandbox that a program is really started in."""
        return self._create(name, workload, instance_pb2.INSTANCE_ROLE_GOLDEN, "")

    def create_clone(
        self, name: str, workload: instance_pb2.Workload, snapshot: str
    ) -> instance_pb2.Instance:
        """Make a sandbox that restores a snapshot."""
        snapshot_name = names.SNAPSHOTS + snapshot
        return self._create(name, workload, instance_pb2.INSTANCE_ROLE_CLONE, snapshot_name)

    def create_snapshot(self, snapshot: str, golden: str) -> TypedStream:
        """Start the checkpoint of a golden; its phases, and at last the snapshot, are streamed."""
        request = snapshotter_service_pb2.CreateSnapshotRequest(
            snapshot_id=snapshot, instance=names.INSTANCES + golden
        )
        stream: Any = self._snapshotter.CreateSnapshot(request)
        return stream  # type: ignore[no-any-return]

    def try_instance(self, name: str) -> snapshot_pb2.Trial:
        """Restore the snapshot of a sandbox that is not armed yet, a few times."""
        request = snapshotter_service_pb2.TryInstanceRequest(name=names.INSTANCES + name)
        return self._snapshotter.TryInstance(request).trial

    def begin_trial(self, name: str, restores: int) -> TypedCall:
        """Begin such restores, so many (0: as usual), whatever limit their function has."""
        request = snapshotter_service_pb2.TryInstanceRequest(
            name=names.INSTANCES + name, restores=restores, ignore_limit=True
        )
        call: Any = self._snapshotter.TryInstance.future(request)
        return call  # type: ignore[no-any-return]

    def arm_instance(self, name: str, endpoint: endpoint_pb2.Endpoint) -> None:
        """Hand a sandbox its endpoint."""
        request = snapshotter_service_pb2.ArmInstanceRequest(
            name=names.INSTANCES + name,
            host_link=endpoint.host_link,
            state_map_path=endpoint.state_map_path,
            state_map_slot=endpoint.state_map_slot,
            inner_ipv4=endpoint.inner_ipv4,
            inner_ipv6=endpoint.inner_ipv6,
        )
        self._snapshotter.ArmInstance(request)

    def wake(self, name: str) -> instance_pb2.Instance:
        """Restore an armed instance, "instances/{instance}"."""
        request = snapshotter_service_pb2.WakeInstanceRequest(name=name)
        return self._snapshotter.WakeInstance(request).instance

    def evict(
        self, name: str, patience_s: float = 0, last_call_s: float = 0
    ) -> instance_pb2.Instance:
        """End the process tree of a running instance, "instances/{instance}", and arm it again.

        With a last call it is not refused: what was taken may be answered that long.
        """
        request = snapshotter_service_pb2.EvictInstanceRequest(name=name)
        if patience_s:
            request.patience.FromMilliseconds(round(patience_s * 1000))
        if last_call_s:
            request.last_call.FromMilliseconds(round(last_call_s * 1000))
        return self._snapshotter.EvictInstance(request).instance

    def delete_instance(self, name: str) -> None:
        """End a sandbox."""
        request = snapshotter_service_pb2.DeleteInstanceRequest(name=names.INSTANCES + name)
        self._snapshotter.DeleteInstance(request)

    def delete_snapshot(self, snapshot: str) -> None:
        """Delete a snapshot."""
        request = snapshotter_service_pb2.DeleteSnapshotRequest(name=names.SNAPSHOTS + snapshot)
        self._snapshotter.DeleteSnapshot(request)

    def delete_root(self, function_id: str, revision: int) -> None:
        """Delete a revision's copy of the function's folder."""
        name = f"{names.ROOTS}{function_id}/{revision}"
        self._snapshotter.DeleteRoot(snapshotter_service_pb2.DeleteRootRequest(name=name))

    def _create(
        self,
        name: str,
        workload: instance_pb2.Workload,
        role: instance_pb2.InstanceRole.ValueType,
        snapshot: str,
    ) -> instance_pb2.Instance:
        """Make a sandbox."""
        request = snapshotter_service_pb2.CreateInstanceRequest(
            instance_id=name, workload=workload, role=role, snapshot=snapshot
        )
        return self._snapshotter.CreateInstance(request).instance

    # The network

    def attach_endpoint(self, name: str, netns_path: str, port: int) -> None:
        """Give a sandbox its link and addresses."""
        endpoint = endpoint_pb2.Endpoint(netns_path=netns_path, trigger_port=port)
        request = netplane_service_pb2.AttachEndpointRequest(endpoint_id=name, endpoint=endpoint)
        self._netplane.AttachEndpoint(request)

    def detach_endpoint(self, name: str) -> None:
        """Take a sandbox's link and addresses away."""
        request = netplane_service_pb2.DetachEndpointRequest(name=names.ENDPOINTS + name)
        self._netplane.DetachEndpoint(request)

    def set_route(
        self,
        port: int,
        function_id: str,
        endpoint: str,
        families: route_pb2.RouteFamilies.ValueType,
    ) -> None:
        """Lead a port to an endpoint; to none, the port is reserved and refuses."""
        route = route_pb2.Route(
            port=port,
            function_id=function_id,
            endpoint=names.ENDPOINTS + endpoint if endpoint else "",
            families=families,
        )
        self._netplane.SetRoute(netplane_service_pb2.SetRouteRequest(route=route))

    def delete_route(self, port: int) -> None:
        """Free a port."""
        request = netplane_service_pb2.DeleteRouteRequest(name=f"{names.ROUTES}{port}")
        self._netplane.DeleteRoute(request)

    # Channels

    def create_channel(self, function_id: str, rules: ChannelRules) -> None:
        """Give a function its channel; nobody is let in yet."""
        channel = _channel(function_id, rules)
        channel.function_id = function_id
        request = ipc_service_pb2.CreateChannelRequest(channel_id=function_id, channel=channel)
        self._ipc.CreateChannel(request)

    def set_channel(self, function_id: str, instance: str, rules: ChannelRules) -> None:
        """Have new calls of a function go to an instance."""
        channel = _channel(function_id, rules)
        channel.instance = names.INSTANCES + instance
        request = ipc_service_pb2.UpdateChannelRequest(channel=channel)
        request.update_mask.paths.extend(("instance", "timeout", "may_call"))
        self._ipc.UpdateChannel(request)

    def admit(self, function_id: str, instance: instance_pb2.Instance) -> None:
        """Let processes of an instance attach to its function's channel."""
        request = ipc_service_pb2.AdmitInstanceRequest(
            channel=names.CHANNELS + function_id,
            instance=instance.name,
            folder=instance.channel_folder,
        )
        self._ipc.AdmitInstance(request)

    def dismiss(
        self, function_id: str, name: str, patience_s: float, *, force: bool = False
    ) -> None:
        """Let nobody of "instances/{instance}" attach any more, and end what is attached.

        Calls that it has are waited for; then it is refused, unless ``force`` has them made again.
        """
        request = ipc_service_pb2.DetachInstanceRequest(
            channel=names.CHANNELS + function_id, instance=name, force=force
        )
        request.drain_timeout.FromMilliseconds(round(patience_s * 1000))
        self._ipc.DetachInstance(request)

    def delete_channel(self, function_id: str) -> None:
        """Take a function's channel away; calls under way end."""
        name = names.CHANNELS + function_id
        self._ipc.DeleteChannel(ipc_service_pb2.DeleteChannelRequest(name=name))


def _channel(function_id: str, rules: ChannelRules) -> channel_pb2.Channel:
    """Return a function's channel with its rules."""
    channel = channel_pb2.Channel(name=names.CHANNELS + function_id, may_call=rules.may_call)
    channel.timeout.FromNanoseconds(rules.timeout_ns)
    return channel


def pages(call: Callable[[Any], Any], request: Any, items: str) -> Iterator[Any]:
    """Yield the items of all pages of a list."""
    request.page_size = PAGE_SIZE
    while True:
        response = call(request)
        yield from getattr(response, items)
        if not response.next_page_token:
            return
        request.page_token = response.next_page_token


def _is_of(owner: names.Owner | None, function_id: str) -> bool:
    """Tell whether an owner is the function."""
    return owner is not None and owner.function == function_id
