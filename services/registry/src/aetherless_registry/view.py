# SPDX-License-Identifier: Apache-2.0
"""What the other services last reported: instances, and the addresses they are reached at."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry import names, resources

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Mapping

    from aetherless.netplane.v1 import endpoint_pb2
    from aetherless.registry.v1 import function_pb2
    from aetherless_registry.machine import Activity


class View:
    """The last known state of all instances. Only a picture: the owners of these things are others.

    Safe for use by many threads.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._instances: dict[str, instance_pb2.Instance] = {}
        self._addresses: dict[str, str] = {}
        self._wakes: dict[str, function_pb2.WakeNotice] = {}

    def put_instance(self, instance: instance_pb2.Instance) -> instance_pb2.Instance | None:
        """Take over one instance as it is now; return what was known. One that ended is dropped."""
        with self._changed:
            known = self._instances.get(instance.name)
            if instance.state == instance_pb2.INSTANCE_STATE_ENDED:
                self._instances.pop(instance.name, None)
                self._wakes.pop(_id(instance), None)
            else:
                self._instances[instance.name] = instance
            self._changed.notify_all()
            return known

    def replace_instances(
        self, instances: Iterable[instance_pb2.Instance]
    ) -> Mapping[str, instance_pb2.Instance]:
        """Take over a full list; return what was known, by name."""
        with self._changed:
            known = self._instances
            self._instances = {instance.name: instance for instance in instances}
            self._changed.notify_all()
            return known

    def put_endpoints(self, endpoints: Iterable[endpoint_pb2.Endpoint]) -> None:
        """Take over the full list of endpoints."""
        addresses = {names.bare(each.name, names.ENDPOINTS): each.outer_ipv4 for each in endpoints}
        with self._changed:
            self._addresses = addresses

    def put_wake(self, wake: function_pb2.WakeNotice) -> None:
        """Take over the newest wake of an instance, with what the network saw of it."""
        with self._changed:
            self._wakes[wake.instance] = wake

    def activities(self, function_id: str) -> list[Activity]:
        """Return what a function's instances do."""
        known = (resources.activity(each) for each in self._of(function_id))
        return [activity for activity in known if activity]

    def statuses(self, function_id: str) -> list[function_pb2.InstanceStatus]:
        """Return the instances that serve a function, by name."""
        with self._changed:
            addresses, wakes = self._addresses, dict(self._wakes)
        return [
            resources.instance_status(each, addresses.get(_id(each), ""), wakes.get(_id(each)))
            for each in self._of(function_id)
            if each.role == instance_pb2.INSTANCE_ROLE_CLONE
        ]

    def wait_for(
        self, name: str, met: Callable[[instance_pb2.Instance], bool], timeout: float
    ) -> bool:
        """Wait until an instance is reported as wanted, at most ``timeout`` seconds."""
        ends_at = time.monotonic() + timeout
        with self._changed:
            while not (name in self._instances and met(self._instances[name])):
                left = ends_at - time.monotonic()
                if left <= 0:
                    return False
                self._changed.wait(left)
            return True

    def _of(self, function_id: str) -> list[instance_pb2.Instance]:
        """Return the instances of a function, by name."""
        with self._changed:
            found = [
                each
                for each in self._instances.values()
                if each.workload.function_id == function_id
            ]
        return sorted(found, key=lambda each: each.name)


def _id(instance: instance_pb2.Instance) -> str:
    """Return an instance's id, which is its endpoint's too."""
    return names.bare(instance.name, names.INSTANCES)
