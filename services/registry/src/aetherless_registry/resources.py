# SPDX-License-Identifier: Apache-2.0
"""Between what the store keeps, what the other services report, and what the contracts say."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.netplane.v1 import route_pb2
from aetherless.registry.v1 import function_pb2, pipeline_pb2, registry_service_pb2
from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless_registry import errors, names, revisions, wakes
from aetherless_registry.desired import ChannelRules, ObservedChannel
from aetherless_registry.machine import Activity

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf.duration_pb2 import Duration

    from aetherless.ipc.v1 import channel_pb2
    from aetherless_common.errors import AetherlessError
    from aetherless_registry.store import Change, FunctionRecord

BYTES_PER_MB = 1 << 20

_ACTIVITIES = {
    instance_pb2.INSTANCE_STATE_ARMED: Activity.RESTORABLE,
    instance_pb2.INSTANCE_STATE_RESTORING: Activity.RESTORABLE,
    instance_pb2.INSTANCE_STATE_RUNNING: Activity.RUNNING,
}
_WARMUPS = {
    function_pb2.WARMUP_KIND_UNSPECIFIED: instance_pb2.WARMUP_KIND_HTTP,
    function_pb2.WARMUP_KIND_HTTP: instance_pb2.WARMUP_KIND_HTTP,
    function_pb2.WARMUP_KIND_TCP: instance_pb2.WARMUP_KIND_TCP,
    function_pb2.WARMUP_KIND_NONE: instance_pb2.WARMUP_KIND_NONE,
}
_CAPABILITIES = {
    function_pb2.CAPABILITY_SET_UNSPECIFIED: instance_pb2.CAPABILITY_SET_NONE,
    function_pb2.CAPABILITY_SET_NONE: instance_pb2.CAPABILITY_SET_NONE,
    function_pb2.CAPABILITY_SET_CONTAINER: instance_pb2.CAPABILITY_SET_CONTAINER,
}
_FAMILIES = {
    snapshot_pb2.LISTEN_FAMILIES_UNSPECIFIED: route_pb2.ROUTE_FAMILIES_UNSPECIFIED,
    snapshot_pb2.LISTEN_FAMILIES_IPV4: route_pb2.ROUTE_FAMILIES_IPV4,
    snapshot_pb2.LISTEN_FAMILIES_IPV6: route_pb2.ROUTE_FAMILIES_IPV6,
    snapshot_pb2.LISTEN_FAMILIES_DUAL: route_pb2.ROUTE_FAMILIES_DUAL,
}


def function_id_of(name: str, field: str = "name") -> str:
    """Return the id in ``functions/{function}``, which is a request's ``field``.

    Raises:
        InvalidArgument: INVALID_ARGUMENT, it is not such a name.
    """
    function_id = names.bare(name, names.FUNCTIONS)
    if not function_id or function_id == name:
        raise errors.invalid_argument(field, f"must be functions/{{function}}, is {name!r}")
    return function_id


def encode_spec(spec: function_pb2.FunctionSpec) -> bytes:
    """Return a declaration as bytes; equal declarations give equal bytes."""
    return spec.SerializeToString(deterministic=True)


def decode_spec(data: bytes) -> function_pb2.FunctionSpec:
    """Return a declaration from its bytes; an empty one from none."""
    return function_pb2.FunctionSpec.FromString(data)


def encode_pipeline(spec: pipeline_pb2.PipelineSpec) -> bytes:
    """Return a pipeline's declaration as bytes; equal declarations give equal bytes."""
    return spec.SerializeToString(deterministic=True)


def encode_error(error: AetherlessError) -> bytes:
    """Return why a deploy failed, as bytes."""
    message = function_pb2.DeployError(
        reason=error.reason, domain=error.domain, message=error.message, metadata=error.metadata
    )
    return message.SerializeToString(deterministic=True)


def etag(record: FunctionRecord) -> str:
    """Return what changes with each change of the function."""
    return str(record.mod_revision)


def function(
    record: FunctionRecord, instances: Iterable[function_pb2.InstanceStatus] = ()
) -> function_pb2.Function:
    """Return a function as its contract has it."""
    message = function_pb2.Function(
        name=names.FUNCTIONS + record.function_id,
        spec=decode_spec(record.spec),
        state=function_pb2.FunctionState.Value(f"FUNCTION_STATE_{record.state}"),
        revision=record.revision,
        serving_revision=record.serving_revision,
        deploy_state=function_pb2.DeployState.Value(f"DEPLOY_STATE_{record.deploy_state}"),
        deploy_step=record.deploy_step,
        instances=instances,
        etag=etag(record),
        deleting=record.deleting,
        revisions=revisions.messages(record),
    )
    if record.deploy_error:
        message.deploy_error.ParseFromString(record.deploy_error)
    message.create_time.FromNanoseconds(record.create_time_ns)
    message.update_time.FromNanoseconds(record.update_time_ns)
    return message


def instance_status(
    instance: instance_pb2.Instance, address: str, told: function_pb2.WakeNotice | None = None
) -> function_pb2.InstanceStatus:
    """Return an instance as a function shows it; ``told`` is a wake with its first byte."""
    message = function_pb2.InstanceStatus(
        instance=instance.name,
        state=instance_state(instance),
        snapshot=instance.snapshot,
        init_pid=instance.init_pid,
        root_pid=instance.root_pid,
        sandbox_root_pid=instance.sandbox_root_pid,
        wakes=instance.wakes,
        address=address,
        failed_wakes=instance.failed_wakes,
    )
    if instance.HasField("last_wake"):
        newest = wakes.notice(instance, instance.last_wake).notice
        message.newest_wake.CopyFrom(told if told and wakes.are_one(told, newest) else newest)
    if instance.HasField("last_wake") and not instance.last_wake.failure_reason:
        message.last_restore.CopyFrom(instance.last_wake.restore_duration)
        message.last_wake_time.CopyFrom(instance.last_wake.first_packet_time)
    return message


def instance_state(instance: instance_pb2.Instance) -> str:
    """Return the name of an instance's state, without prefix."""
    name: str = instance_pb2.InstanceState.Name(instance.state)
    return name.removeprefix("INSTANCE_STATE_")


def activity(instance: instance_pb2.Instance) -> Activity | None:
    """Return what an instance means for its function's state; None for nothing."""
    if instance.role != instance_pb2.INSTANCE_ROLE_CLONE:
        return None
    return _ACTIVITIES.get(instance.state)


def workload(spec: function_pb2.FunctionSpec, revision: int) -> instance_pb2.Workload:
    """Return what the snapshotter is to run for a revision."""
    return instance_pb2.Workload(
        function_id=spec.function_id,
        revision=revision,
        handler_path=spec.handler_path,
        root_path=spec.root_path,
        memory_limit_bytes=spec.memory_limit_mb * BYTES_PER_MB,
        trigger_port=spec.trigger_port,
        environment=spec.environment,
        timeout=spec.timeout,
        restore_timeout=spec.restore_timeout,
        idle_after=spec.idle_after,
        warmup=_warmup(spec),
        mounts=spec.mounts,
        capabilities=_CAPABILITIES[spec.capabilities],
        ipc=spec.ipc,
    )


def _warmup(spec: function_pb2.FunctionSpec) -> instance_pb2.Warmup:
    """Return how a program shows that it answers; there is nothing to ask without a port."""
    kind = _WARMUPS[spec.warmup_kind] if spec.trigger_port else instance_pb2.WARMUP_KIND_NONE
    return instance_pb2.Warmup(kind=kind, path=spec.warmup_path or "/")


def channel_rules(spec: function_pb2.FunctionSpec) -> ChannelRules | None:
    """Return what holds for the channel of a declaration; None when it has none."""
    if not spec.ipc:
        return None
    return _rules(spec.timeout, spec.may_call)


def observed_channel(channel: channel_pb2.Channel) -> ObservedChannel:
    """Return a channel as the plan sees it."""
    return ObservedChannel(
        _rules(channel.timeout, channel.may_call),
        names.bare(channel.instance, names.INSTANCES),
        frozenset(names.bare(each.instance, names.INSTANCES) for each in channel.admissions),
    )


def _rules(timeout: Duration, may_call: Iterable[str]) -> ChannelRules:
    """Return rules as the ipc service keeps them, so that two that mean the same are equal."""
    milliseconds = round(timeout.ToNanoseconds() / 1e6)
    return ChannelRules(milliseconds * 1_000_000, tuple(sorted(set(may_call))))


def route_families(snapshot: snapshot_pb2.Snapshot) -> route_pb2.RouteFamilies.ValueType:
    """Return the address families of a route to a snapshot's handler."""
    return _FAMILIES[snapshot.listen_families]


def change_event(
    change: Change, instances: Iterable[function_pb2.InstanceStatus] = ()
) -> registry_service_pb2.FunctionEvent:
    """Return a change as watchers see it."""
    kind = (
        registry_service_pb2.FUNCTION_EVENT_TYPE_DELETED
        if change.removed
        else registry_service_pb2.FUNCTION_EVENT_TYPE_UPDATED
    )
    return registry_service_pb2.FunctionEvent(
        type=kind, function=function(change.record, instances)
    )
