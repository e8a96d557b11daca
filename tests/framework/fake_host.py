# SPDX-License-Identifier: Apache-2.0
"""A host without sandboxes, for the registry's tests: what a snapshotter and a netplane own.

The real ones need root, CRIU and BPF; the registry is to be killed after each step of a deploy, and
that takes a host whose every step can be held. ``fake_services`` serves it.
"""

from __future__ import annotations

import itertools
import threading
from collections import defaultdict
from typing import TYPE_CHECKING, Any

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2, snapshotter_service_pb2
from aetherless_common.errors import NotFound
from aetherless_common.watch import Broadcaster

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.ipc.v1 import channel_pb2
    from aetherless.netplane.v1 import endpoint_pb2, route_pb2
    from aetherless_common.errors import AetherlessError

CREATED = instance_pb2.INSTANCE_STATE_CREATED
STARTED = instance_pb2.INSTANCE_STATE_STARTED
ARMED = instance_pb2.INSTANCE_STATE_ARMED
RUNNING = instance_pb2.INSTANCE_STATE_RUNNING
ENDED = instance_pb2.INSTANCE_STATE_ENDED
CLONE = instance_pb2.INSTANCE_ROLE_CLONE


def trial_of(*, milliseconds: int) -> snapshot_pb2.Trial:
    """Return what ten equally long trial restores show."""
    trial = snapshot_pb2.Trial()
    for _ in range(10):
        trial.restores.add().FromMilliseconds(milliseconds)
    trial.median.FromMilliseconds(milliseconds)
    trial.maximum.FromMilliseconds(milliseconds)
    trial.first_answer.FromMilliseconds(2 * milliseconds)
    trial.suggested_timeout.FromMilliseconds(2 * milliseconds)
    return trial


class FakeHost:
    """What the two services own. Outlives them, as sandboxes and routes do.

    Attributes:
        trial: what trial restores show.
        findings: what programs are found to hold before they are checkpointed.
        calls: the RPCs that change something, in the order they came.
        faults: for an RPC, the errors that its next calls are answered with.
        before: called with each changing RPC's name before it has an effect.
        after: called with each changing RPC's name after its effect, before its answer.
        holds: while clear, CreateSnapshot does not go on.
        trials: while clear, TryInstance does not go on before its client cancels it.
        in_use: instances whose clients never pause.
        last_calls: instances that were ended under them, in order.
        in_call: instances that have calls of their channels to answer.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.instances: dict[str, instance_pb2.Instance] = {}
        self.snapshots: dict[str, snapshot_pb2.Snapshot] = {}
        self.roots: set[tuple[str, int]] = set()
        self.endpoints: dict[str, endpoint_pb2.Endpoint] = {}
        self.channels: dict[str, channel_pb2.Channel] = {}
        self.routes: dict[int, route_pb2.Route] = {}
        self.busy: set[str] = set()
        self.foreign_ports: set[int] = set()
        self.trial = trial_of(milliseconds=4)
        self.findings: list[snapshot_pb2.Finding] = []
        self.calls: list[str] = []
        self.in_use: set[str] = set()
        self.last_calls: list[str] = []
        self.in_call: set[str] = set()
        self.faults: dict[str, list[AetherlessError]] = defaultdict(list)
        self.before: Callable[[str], None] = lambda _: None
        self.after: Callable[[str], None] = lambda _: None
        self.holds = threading.Event()
        self.holds.set()
        self.trials = threading.Event()
        self.trials.set()
        self.counter = itertools.count(1)
        self.changes: Broadcaster[Any] = Broadcaster()
        self.answers: Broadcaster[Any] = Broadcaster()

    def names(self) -> dict[str, list[str]]:
        """Return what there is, by kind."""
        with self.lock:
            return {
                "instances": sorted(self.instances),
                "endpoints": sorted(self.endpoints),
                "snapshots": sorted(self.snapshots),
                "roots": [f"{owner}/{number}" for owner, number in sorted(self.roots)],
                "channels": [_described(each) for _, each in sorted(self.channels.items())],
                "routes": [f"{port} {r.endpoint}" for port, r in sorted(self.routes.items())],
            }

    def begin(self, rpc: str) -> None:
        """Note a changing RPC, and refuse it when a fault is set."""
        self.before(rpc)
        with self.lock:
            self.calls.append(rpc)
            if self.faults[rpc]:
                raise self.faults[rpc].pop(0)

    def change(self, instance: instance_pb2.Instance, wake: instance_pb2.Wake | None = None) -> Any:
        """Tell watchers of an instance; return a copy of it."""
        copy = instance_pb2.Instance()
        copy.CopyFrom(instance)
        response = snapshotter_service_pb2.WatchInstancesResponse(instance=copy, wake=wake)
        self.changes.publish(response)
        return copy

    def end(self, name: str, reason: str = "killed") -> None:
        """Let a sandbox die by itself."""
        with self.lock:
            instance = self.instances.pop(name)
            instance.state = ENDED
            instance.end_reason = reason
            instance.lost = True
            self.change(instance)

    def evict(
        self, instance: instance_pb2.Instance, cause: instance_pb2.TreeEndCause.ValueType
    ) -> Any:
        """End the tree of an instance, and tell it; then arm it again."""
        with self.lock:
            instance.evictions += cause != instance_pb2.TREE_END_CAUSE_EXITED
            instance.last_end.cause = cause
            instance.last_end.time.GetCurrentTime()
            self.change(instance)
            instance.state = ARMED
            instance.root_pid = instance.sandbox_root_pid = 0
            return self.change(instance)

    def fail_wake(self, name: str, reason: str, message: str, at_ns: int) -> None:
        """Let a wake by a packet fail."""
        with self.lock:
            instance = self.instances[name]
            instance.failed_wakes += 1
            wake = instance_pb2.Wake(
                sequence=instance.wakes + instance.failed_wakes,
                cause=instance_pb2.WAKE_CAUSE_PACKET,
                client="127.0.0.1:5",
                failure_reason=reason,
                failure_message=message,
            )
            wake.first_packet_time.FromNanoseconds(at_ns)
            wake.request_latency.FromMicroseconds(100)
            wake.restore_duration.FromMicroseconds(16_600)
            instance.last_wake.CopyFrom(wake)
            self.change(instance, wake)

    def wake(self, name: str, cause: instance_pb2.WakeCause.ValueType, at_ns: int) -> None:
        """Restore an instance, as a packet or a command does."""
        with self.lock:
            instance = self.instances[name]
            instance.state = RUNNING
            instance.wakes += 1
            instance.root_pid, instance.sandbox_root_pid = 4000, 7
            number = instance.wakes + instance.failed_wakes
            wake = instance_pb2.Wake(sequence=number, cause=cause, client="127.0.0.1:5")
            wake.first_packet_time.FromNanoseconds(at_ns)
            wake.restore_duration.FromMilliseconds(9)
            instance.last_wake.CopyFrom(wake)
            self.change(instance, wake)

    def dismiss(self, channel_id: str, instance: str) -> None:
        """Let an instance, "instances/{instance}", attach to a channel no more."""
        with self.lock:
            admissions = self.channels[channel_id].admissions
            kept = [each for each in admissions if each.instance != instance]
            del admissions[:]
            admissions.extend(kept)

    def find(self, name: str) -> instance_pb2.Instance:
        """Return an instance by its resource name."""
        key = name.removeprefix("instances/")
        if key not in self.instances:
            raise NotFound("INSTANCE_NOT_FOUND", f"no instance {key}", {"instance": key})
        return self.instances[key]


def _described(channel: channel_pb2.Channel) -> str:
    """Return where a channel leads, and who may attach."""
    admitted = sorted(each.instance.removeprefix("instances/") for each in channel.admissions)
    goes_to = channel.instance.removeprefix("instances/")
    return f"{channel.name.removeprefix('channels/')} to {goes_to}, admits {' '.join(admitted)}"
