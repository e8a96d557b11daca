# SPDX-License-Identifier: Apache-2.0
"""Writes down what the observer hears of instances and services, each thing once.

Wakes that happened while nobody listened are known by the newest of each instance, which the
snapshotter remembers: it is recorded, with the number of those before it that can't be.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common import tracing
from aetherless_registry import instance_events, names
from aetherless_registry.events import WARNING
from aetherless_registry.wakes import notice

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aetherless_registry.catalog import Catalog
    from aetherless_registry.event_store import EventRecord
    from aetherless_registry.events import EventLog
    from aetherless_registry.wakes import Noticed
    from aetherless_registry.wakespans import WakeSpans

SURVIVED_NOT = "it did not survive while the snapshotter was away"


class Chronicle:
    """Records each wake, end and loss once. Safe for use by many threads.

    Args:
        events: the log.
        catalog: says which instances shall be.
        wakespans: records the wakes that nobody listened to.
        clock: the time in nanoseconds since the epoch.
    """

    def __init__(
        self,
        events: EventLog,
        catalog: Catalog,
        wakespans: WakeSpans,
        clock: Callable[[], int] = time.time_ns,
    ) -> None:
        self._events = events
        self._catalog = catalog
        self._wakespans = wakespans
        self._clock = clock
        self._lock = threading.Lock()
        # Of each sandbox, by name and birth: the number of the newest wake that was heard of, and
        # the time of the newest end.
        self._wakes: dict[tuple[str, int], int] = {}
        self._ends: dict[tuple[str, int], int] = {}
        self._gone_at: dict[str, float] = {}

    # Instances

    def heard_wake(self, instance: instance_pb2.Instance, wake: instance_pb2.Wake) -> None:
        """Take note of a wake that ``wake_told`` will bring once its story is complete."""
        with self._lock:
            self._wakes[_sandbox(instance)] = wake.sequence

    def wake_told(self, noticed: Noticed) -> None:
        """Record a wake."""
        self._events.add(instance_events.woken(noticed))

    def changed(self, instance: instance_pb2.Instance) -> None:
        """Record what became of an instance, its wakes apart."""
        if instance.role != instance_pb2.INSTANCE_ROLE_CLONE:
            return
        self._take_end(instance)
        if instance.lost:
            self._events.add(instance_events.lost(instance, instance.end_reason, self._clock()))
        if instance.state == instance_pb2.INSTANCE_STATE_ENDED:
            self._forget(instance)

    def resumed(
        self,
        known: Mapping[str, instance_pb2.Instance],
        present: Iterable[instance_pb2.Instance],
    ) -> None:
        """Record what happened while nobody listened.

        Args:
            known: the instances as they were last heard of, by name; none at the start.
            present: the instances there are now.
        """
        clones = [each for each in present if each.role == instance_pb2.INSTANCE_ROLE_CLONE]
        for clone in clones:
            self._recover_wake(clone)
            self._take_end(clone)
        living = {_sandbox(each) for each in clones}
        for instance in known.values():
            if _sandbox(instance) not in living:
                self._miss(instance)

    def _recover_wake(self, instance: instance_pb2.Instance) -> None:
        """Record an instance's newest wake unless it was heard of."""
        sandbox, sequence = _sandbox(instance), instance.last_wake.sequence
        with self._lock:
            told = self._wakes.get(sandbox)
            if told is None:
                event = self._newest(instance, instance_events.wakes_of)
                told = int(event.metadata["wake"]) if event else 0
            self._wakes[sandbox] = max(told, sequence)
        if sequence > told:
            noticed = notice(instance, instance.last_wake)
            with tracing.use(self._wakespans.record(noticed)):
                self._events.add(instance_events.woken(noticed, unrecorded=sequence - told - 1))

    def _take_end(self, instance: instance_pb2.Instance) -> None:
        """Record the newest end of an instance's tree unless it was."""
        if not instance.HasField("last_end"):
            return
        sandbox, time_ns = _sandbox(instance), instance.last_end.time.ToNanoseconds()
        with self._lock:
            told = self._ends.get(sandbox)
            if told is None:
                event = self._newest(instance, instance_events.ends_of)
                told = event.time_ns if event else 0
            self._ends[sandbox] = max(told, time_ns)
        if time_ns > told:
            self._events.add(instance_events.tree_ended(instance))

    def _miss(self, instance: instance_pb2.Instance) -> None:
        """Record that an instance is gone, if it was not to go."""
        self._forget(instance)
        record = self._catalog.find(instance.workload.function_id)
        serves = record and record.serving_revision == instance.workload.revision
        if record and serves and not record.deleting:
            self._events.add(instance_events.lost(instance, SURVIVED_NOT, self._clock()))

    def _newest(
        self, instance: instance_pb2.Instance, subject: Callable[[str], str]
    ) -> EventRecord | None:
        """Return the newest event that is kept of this sandbox, and not of an earlier one."""
        event = self._events.newest(subject(names.bare(instance.name, names.INSTANCES)))
        born = instance.create_time.ToNanoseconds()
        return event if event and event.time_ns >= born else None

    def _forget(self, instance: instance_pb2.Instance) -> None:
        """Let go of what was kept of a sandbox that is gone."""
        with self._lock:
            self._wakes.pop(_sandbox(instance), None)
            self._ends.pop(_sandbox(instance), None)

    # Services

    def service_lost(self, service: str, cause: str) -> None:
        """Record that a service does not answer any more; once until it is back."""
        with self._lock:
            if service in self._gone_at:
                return
            self._gone_at[service] = time.monotonic()
        self._events.record(
            "",
            "SERVICE_LOST",
            f"the {service} does not answer; what runs and sleeps goes on without it",
            severity=WARNING,
            metadata={"service": service, "cause": cause},
        )

    def service_back(self, service: str) -> None:
        """Record that a service answers again; nothing when it was not lost."""
        with self._lock:
            gone_at = self._gone_at.pop(service, None)
        if gone_at is not None:
            gone_ms = round((time.monotonic() - gone_at) * 1e3)
            self._events.record(
                "",
                "SERVICE_BACK",
                f"the {service} answers again, after {gone_ms} ms",
                metadata={"service": service, "goneMs": gone_ms},
            )


def _sandbox(instance: instance_pb2.Instance) -> tuple[str, int]:
    """Return what tells a sandbox from all others: names are used again."""
    return instance.name, instance.create_time.ToNanoseconds()
