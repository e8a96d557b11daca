# SPDX-License-Identifier: Apache-2.0
"""From what is desired and what is observed to the next step. Pure: no clock, no I/O, no memory.

Only one step is ever planned; after it the world is observed again. So a step that was done by
somebody who died before noting it is simply not planned again, and one that was half done is.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_registry.desired import Desired, Observed, ObservedRoute, Step, StepKind
from aetherless_registry.names import golden_id, instance_id, sandbox_owner, snapshot_id

if TYPE_CHECKING:
    from collections.abc import Iterator


def next_step(desired: Desired, observed: Observed) -> Step | None:
    """Return what is to be done next; None when all is as it shall be."""
    return next(_steps(desired, observed), None)


def drains(desired: Desired, observed: Observed) -> list[Step]:
    """Return a wait for each revision that is replaced and answers still."""
    others = sorted(observed.revisions() - {desired.target, desired.serving_revision})
    return [step for revision in others for step in _drain(desired, observed, revision)]


def _steps(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what is to be done, by urgency; only the first is sure."""
    if desired.deleting or not desired.target:
        yield from _delete_routes(desired, observed, keep=set())
        yield from _end_channel(desired, observed)
        for revision in sorted(observed.revisions()):
            yield from _remove(desired, observed, revision)
        if desired.deleting:
            yield Step(StepKind.FORGET)
        return
    yield from _lead_back(desired, observed)
    yield from _channel(desired, observed)
    yield from _delete_routes(desired, observed, keep={desired.target_port, desired.serving_port})
    others = sorted(observed.revisions() - {desired.target, desired.serving_revision})
    draining = [step.revision for step in drains(desired, observed)]
    for revision in others:
        if revision not in draining:
            yield from _remove(desired, observed, revision)
    if desired.spoiled:
        yield from _remake_snapshot(desired, observed)
    yield from _snapshot(desired, observed)
    yield from _instance(desired, observed)
    yield from _route(desired, observed)
    yield from _set_channel(desired, observed)
    if desired.serving_revision != desired.target:
        yield Step(StepKind.MARK_SERVING, desired.target)
    # What is answering still is waited for last: the next revision does not have to.
    for revision in draining:
        yield from _remove(desired, observed, revision)
    yield from _end_channel(desired, observed)


def _channel(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what gives the target its channel, and lets nobody into it who is gone."""
    channel = observed.channel
    if channel is None:
        if desired.channel:
            yield Step(StepKind.CREATE_CHANNEL, desired.target)
        return
    for name in sorted(channel.admitted - observed.instances.keys()):
        owner = sandbox_owner(name)
        yield Step(StepKind.DISMISS_INSTANCE, owner.revision if owner else 0, instance=name)
    name = instance_id(desired.function, desired.serving_revision)
    serving = observed.instances.get(name)
    lives = serving is not None and serving.state in {"ARMED", "RESTORING", "RUNNING"}
    if lives and channel.instance == name and name not in channel.admitted:
        # An eviction was begun by somebody who died.
        yield Step(StepKind.ADMIT_INSTANCE, desired.serving_revision)


def _end_channel(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what takes a channel away that nothing shall be called through."""
    wanted = desired.channel and desired.target and not desired.deleting
    if observed.channel and not wanted:
        yield Step(StepKind.DELETE_CHANNEL)


def _is_shut_out(desired: Desired, observed: Observed, name: str) -> bool:
    """Tell whether an instance of the target should have been let into the channel and was not."""
    channel = observed.channel
    return desired.channel is not None and channel is not None and name not in channel.admitted


def _snapshot(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what brings the target its snapshot, and its golden away again."""
    revision, golden = desired.target, golden_id(desired.function, desired.target)
    instance, endpoint = observed.instances.get(golden), observed.endpoints.get(golden)
    if snapshot_id(desired.function, revision) in observed.snapshots:
        if instance or endpoint is not None:
            yield Step(StepKind.DELETE_GOLDEN, revision)
        return
    stale = endpoint is not None and (instance is None or endpoint != instance.netns_path)
    if stale or (instance and instance.state != "CREATED"):
        # It was interrupted: a golden is started once, and an endpoint is for one sandbox.
        yield Step(StepKind.DELETE_GOLDEN, revision)
    elif instance is None:
        yield Step(StepKind.CREATE_GOLDEN, revision)
    elif endpoint is None:
        yield Step(StepKind.ATTACH_GOLDEN, revision)
    elif _is_shut_out(desired, observed, golden):
        yield Step(StepKind.ADMIT_GOLDEN, revision)
    yield Step(StepKind.CREATE_SNAPSHOT, revision)


def _instance(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what brings the target an armed instance."""
    revision, name = desired.target, instance_id(desired.function, desired.target)
    instance, endpoint = observed.instances.get(name), observed.endpoints.get(name)
    # In one that was tried and not left again, anything may be.
    lost = instance is None or instance.state in {"TRYING", "ENDED"}
    if instance and not lost and instance.state != "CREATED":
        lost = endpoint is None  # it can't be handed another one
    if instance and endpoint is not None:
        lost = lost or endpoint != instance.netns_path
    if lost:
        yield from _clear_instance(desired, observed, revision)
        yield Step(StepKind.CREATE_INSTANCE, revision)
    elif endpoint is None:
        yield Step(StepKind.ATTACH_INSTANCE, revision)
    else:
        made = instance is not None and instance.state == "CREATED"
        if made and snapshot_id(desired.function, revision) not in observed.tried:
            yield Step(StepKind.TRY_SNAPSHOT, revision)
        if _is_shut_out(desired, observed, name):
            yield Step(StepKind.ADMIT_INSTANCE, revision)
        if made:
            yield Step(StepKind.ARM_INSTANCE, revision)


def _route(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what leads the target's port, if it has one, to the target."""
    if not desired.target_port:
        return
    route = observed.routes.get(desired.target_port)
    families = observed.snapshots[snapshot_id(desired.function, desired.target)]
    wanted = ObservedRoute(
        desired.function, instance_id(desired.function, desired.target), families
    )
    if route and route.function != desired.function:
        yield Step(StepKind.AWAIT_PORT, desired.target, desired.target_port)
    elif route != wanted:
        yield Step(StepKind.SET_ROUTE, desired.target, desired.target_port)


def _set_channel(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what leads the calls through the target's channel, if it has one, to the target."""
    channel = observed.channel
    wanted = (instance_id(desired.function, desired.target), desired.channel)
    if desired.channel and channel and (channel.instance, channel.rules) != wanted:
        yield Step(StepKind.SET_CHANNEL, desired.target)


def _lead_back(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what leads the serving port back from a revision that was given up.

    It happens when the registry died between a set-route and its note, and another revision was
    declared before it came back.
    """
    serving = instance_id(desired.function, desired.serving_revision)
    leads_to = {serving, instance_id(desired.function, desired.target), ""}
    route = observed.routes.get(desired.serving_port)
    if not desired.serving_revision or route is None or route.function != desired.function:
        return
    if route.endpoint not in leads_to and serving in observed.endpoints:
        yield Step(StepKind.SET_ROUTE, desired.serving_revision, desired.serving_port)


def _remake_snapshot(desired: Desired, observed: Observed) -> Iterator[Step]:
    """Yield what takes a snapshot away that can't be used, with the instance that was to use it."""
    yield from _clear_instance(desired, observed, desired.target)
    if snapshot_id(desired.function, desired.target) in observed.snapshots:
        yield Step(StepKind.DELETE_SNAPSHOT, desired.target)


def _remove(desired: Desired, observed: Observed, revision: int) -> Iterator[Step]:
    """Yield what takes a revision away: a deploy's steps, backwards.

    One that is kept has its snapshot and its files left.
    """
    lasting = revision in desired.lasting
    yield from _drain(desired, observed, revision)
    yield from _clear_instance(desired, observed, revision)
    if snapshot_id(desired.function, revision) in observed.snapshots and not lasting:
        yield Step(StepKind.DELETE_SNAPSHOT, revision)
    golden = golden_id(desired.function, revision)
    if golden in observed.instances or golden in observed.endpoints:
        yield Step(StepKind.DELETE_GOLDEN, revision)
    if revision in observed.roots and not lasting:
        yield Step(StepKind.DELETE_ROOT, revision)


def _drain(desired: Desired, observed: Observed, revision: int) -> Iterator[Step]:
    """Yield the wait for what is in flight, unless the function is to go or it took too long."""
    name = instance_id(desired.function, revision)
    instance = observed.instances.get(name)
    busy = instance and instance.state in {"RUNNING", "RESTORING"}
    lost = desired.deleting or not desired.serving_revision
    if busy and not lost and name not in desired.impatient:
        yield Step(StepKind.DRAIN_INSTANCE, revision)


def _clear_instance(desired: Desired, observed: Observed, revision: int) -> Iterator[Step]:
    """Yield what takes an instance away; a port that leads to it stays reserved, and refuses."""
    name = instance_id(desired.function, revision)
    for port, route in sorted(observed.routes.items()):
        if route.endpoint == name and route.function == desired.function:
            yield Step(StepKind.RESERVE_PORT, revision, port)
    if name in observed.endpoints:
        yield Step(StepKind.DETACH_INSTANCE, revision)
    if name in observed.instances:
        yield Step(StepKind.DELETE_INSTANCE, revision)


def _delete_routes(desired: Desired, observed: Observed, keep: set[int]) -> Iterator[Step]:
    """Yield what frees the ports that the function has and shall not have."""
    for port, route in sorted(observed.routes.items()):
        if route.function == desired.function and port not in keep:
            yield Step(StepKind.DELETE_ROUTE, port=port)
