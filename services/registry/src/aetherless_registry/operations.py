# SPDX-License-Identifier: Apache-2.0
"""What can be done to a deployed function by command: evict it, wake it.

The call goes to the snapshotter first; what it answers is stored only after that. Its typed errors
reach the caller as they are.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry import errors, names
from aetherless_registry.machine import FunctionState

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_registry.catalog import Catalog
    from aetherless_registry.observer import Observer
    from aetherless_registry.peers import Peers
    from aetherless_registry.store import FunctionRecord
    from aetherless_registry.view import View
    from aetherless_registry.wakespans import WakeSpans

# How long the news of what was just done may take; after that the answer itself is taken over.
NEWS_TIMEOUT_S = 1.0
# How long calls that were delivered through a channel are waited for before an eviction.
CALLS_PATIENCE_S = 5.0
_RUNS = frozenset({instance_pb2.INSTANCE_STATE_RUNNING, instance_pb2.INSTANCE_STATE_RESTORING})


class Operations:
    """Evicts and wakes.

    Args:
        catalog: the functions.
        peers: the services.
        view: where the news of instances arrive.
        observer: brings a function's state to what its instances show.
        wakespans: told who asks for a wake.
    """

    def __init__(
        self,
        catalog: Catalog,
        peers: Peers,
        view: View,
        observer: Observer,
        wakespans: WakeSpans,
    ) -> None:
        self._catalog = catalog
        self._peers = peers
        self._view = view
        self._observer = observer
        self._wakespans = wakespans

    def evict(self, function_id: str) -> FunctionRecord:
        """End the running instances of a function; one that does not run is left as it is.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
            Aborted: OPERATION_IN_PROGRESS, it is being deleted.
            FailedPrecondition: INVALID_STATE_TRANSITION, nothing serves it; the snapshotter's; or
                CALLS_IN_FLIGHT.
            Unavailable: PEER_UNREACHABLE.
        """
        record = self._serving(function_id, FunctionState.WARM_SNAPSHOT)
        for clone in self._peers.clones(record.function_id):
            if clone.state in _RUNS:
                self._evict(clone)
        return self._catalog.get(function_id)

    def wake(self, function_id: str) -> FunctionRecord:
        """Restore the instance that serves a function, unless it runs.

        Raises:
            NotFound: FUNCTION_NOT_FOUND.
            Aborted: OPERATION_IN_PROGRESS, it is being deleted.
            FailedPrecondition: INVALID_STATE_TRANSITION, nothing serves it; or the snapshotter's.
            Unavailable: PEER_UNREACHABLE.
        """
        record = self._serving(function_id, FunctionState.RUNNING)
        name = names.instance_id(function_id, record.serving_revision)
        self._wakespans.commanded(name)
        woken = self._peers.wake(names.INSTANCES + name)
        self._take_over(woken, lambda seen: seen.wakes >= woken.wakes)
        return self._catalog.get(function_id)

    def _evict(self, clone: instance_pb2.Instance) -> None:
        """End the process tree of one instance, after its channel has let it go."""
        function_id = clone.workload.function_id
        if clone.workload.ipc:
            self._peers.dismiss(function_id, clone.name, CALLS_PATIENCE_S)
        try:
            evicted = self._peers.evict(clone.name)
            self._take_over(evicted, lambda seen: _shows_eviction(seen, evicted))
        finally:
            if clone.workload.ipc:
                self._peers.admit(function_id, clone)

    def _serving(self, function_id: str, target: FunctionState) -> FunctionRecord:
        """Return a function that something serves."""
        record = self._catalog.get(function_id)
        if record.deleting:
            raise errors.operation_in_progress(function_id)
        if not record.serving_revision:
            raise errors.invalid_state_transition(function_id, record.state, target.value)
        return record

    def _take_over(
        self,
        instance: instance_pb2.Instance,
        told: Callable[[instance_pb2.Instance], bool],
    ) -> None:
        """Wait for the news of what was done, so that older news can't undo it."""
        if not self._view.wait_for(instance.name, told, NEWS_TIMEOUT_S):
            self._view.put_instance(instance)
        self._observer.settle(instance.workload.function_id)


def _shows_eviction(seen: instance_pb2.Instance, evicted: instance_pb2.Instance) -> bool:
    """Tell whether news of an instance are not older than its eviction.

    An eviction is counted while the instance still is RUNNING, and armed after that; what runs
    later was woken again.
    """
    counted = seen.evictions - evicted.evictions
    ended = seen.state != instance_pb2.INSTANCE_STATE_RUNNING or seen.wakes > evicted.wakes
    return counted > 0 or (counted == 0 and ended)
