# SPDX-License-Identifier: Apache-2.0
"""Listens to the snapshotter and the netplane, and keeps functions' states to what they tell.

Nothing here is on the way of a wake: the sandbox has restored by the time its story arrives.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common import tracing
from aetherless_common.errors import AetherlessError, Unavailable
from aetherless_registry import names
from aetherless_registry.wakes import Noticed, WakeJoiner

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless.netplane.v1 import netplane_service_pb2
    from aetherless.snapshotter.v1 import snapshotter_service_pb2
    from aetherless_common.channels import TypedStream
    from aetherless_registry.catalog import Catalog
    from aetherless_registry.chronicle import Chronicle
    from aetherless_registry.peers import Peers
    from aetherless_registry.reconciler import Reconciler
    from aetherless_registry.view import View
    from aetherless_registry.wakespans import WakeSpans

log = structlog.get_logger()
FIRST_RETRY_S = 0.05
LAST_RETRY_S = 1.0
# How long one look for a service that may be lost takes at most.
LOOK_S = 0.5
JOIN_S = 3.0


class Observer:
    """Three threads: one per stream, and one that tells of wakes which got no answer.

    Args:
        catalog: told what functions do.
        peers: the services.
        view: shown what instances do.
        reconciler: told what needs repair.
        chronicle: told what happens.
        wakespans: records wakes.
    """

    def __init__(
        self,
        catalog: Catalog,
        peers: Peers,
        view: View,
        reconciler: Reconciler,
        chronicle: Chronicle,
        wakespans: WakeSpans,
    ) -> None:
        self._catalog = catalog
        self._peers = peers
        self._view = view
        self._reconciler = reconciler
        self._chronicle = chronicle
        self._wakespans = wakespans
        self._joiner = WakeJoiner()
        self._changed = threading.Condition()
        self._stopping = threading.Event()
        self._streams: dict[str, TypedStream] = {}
        follow = self._follow
        loops: dict[str, Callable[[], None]] = {
            "instances": lambda: follow("snapshotter", peers.watch_instances, self._read_instances),
            "traffic": lambda: follow("netplane", peers.watch_traffic, self._read_traffic),
            "wakes": self._expire_wakes,
        }
        self._threads = [
            threading.Thread(target=loop, name=f"observe-{name}", daemon=True)
            for name, loop in loops.items()
        ]

    def start(self) -> None:
        """Begin to listen; services that are not there yet are waited for."""
        for thread in self._threads:
            thread.start()

    def stop(self) -> None:
        """End the streams and the threads."""
        self._stopping.set()
        with self._changed:
            streams = list(self._streams.values())
            self._changed.notify_all()
        for stream in streams:
            stream.cancel()
        for thread in self._threads:
            if thread.is_alive():
                thread.join(JOIN_S)

    def settle(self, function_id: str) -> None:
        """Bring a function's state to what its instances show."""
        self._catalog.observe(function_id, self._view.activities(function_id))

    def _follow(
        self, service: str, begin: Callable[[], TypedStream], read: Callable[[TypedStream], None]
    ) -> None:
        """Read a service's stream; begin it again whenever it ends."""
        delay = FIRST_RETRY_S
        while not self._stopping.is_set():
            begun = time.monotonic()
            try:
                stream = begin()
                with self._changed:
                    self._streams[service] = stream
                read(stream)
                self._wait_if_lost(service, "it ended its stream")
            except AetherlessError as error:
                log.info("stream ended", service=service, error=str(error))
                self._wait_if_lost(service, str(error), gone=isinstance(error, Unavailable))
            except Exception:
                if not self._stopping.is_set():
                    log.exception("stream failed", service=service)
            if not self._stopping.is_set():
                self._reconciler.resync()  # once it is back, all is looked at again
            lasted = time.monotonic() - begun > LAST_RETRY_S
            delay = FIRST_RETRY_S if lasted else min(delay * 2, LAST_RETRY_S)
            self._stopping.wait(delay)

    def _wait_if_lost(self, service: str, cause: str, *, gone: bool = False) -> None:
        """Record that a service is lost, wait for it, and record that it is back.

        It is lost when it is known to be ``gone``, or does not answer now.
        """
        if self._stopping.is_set() or (not gone and self._peers.answers(service, LOOK_S)):
            return
        self._chronicle.service_lost(service, cause)
        while not self._stopping.is_set():
            if self._peers.answers(service, LOOK_S):
                self._chronicle.service_back(service)
                return

    # Instances

    def _read_instances(self, stream: TypedStream) -> None:
        """Take over the present state, then each change."""
        if self._stopping.is_set():
            return
        present: list[instance_pb2.Instance] | None = []
        for response in stream:
            if present is None:
                self._take_change(response)
            elif response.synced:
                self._take_all(present)
                present = None
            else:
                present.append(response.instance)

    def _take_all(self, present: list[instance_pb2.Instance]) -> None:
        """Take over a full list: the snapshotter is there, or there again."""
        present = [each for each in present if not names.is_check(each.workload.function_id)]
        known = self._view.replace_instances(present)
        self._chronicle.resumed(known, present)
        touched = {each.workload.function_id for each in (*known.values(), *present)}
        declared = {record.function_id for record in self._catalog.records()[0]}
        for function_id in touched | declared:
            self.settle(function_id)
        self._reconciler.resync()

    def _take_change(self, response: snapshotter_service_pb2.WatchInstancesResponse) -> None:
        """Take over one change, and tell of the wake in it."""
        instance = response.instance
        function_id = instance.workload.function_id
        if not response.HasField("instance") or names.is_check(function_id):
            return
        self._view.put_instance(instance)
        self.settle(function_id)
        if response.HasField("wake"):
            self._chronicle.heard_wake(instance, response.wake)
            self._join(lambda now: self._joiner.wake(instance, response.wake, now))
        self._chronicle.changed(instance)
        if instance.state == instance_pb2.INSTANCE_STATE_ENDED:
            log.info("instance ended", instance=instance.name, why=instance.end_reason)
            self._reconciler.enqueue(function_id)

    # First answers

    def _read_traffic(self, stream: TypedStream) -> None:
        """Take first answers."""
        if self._stopping.is_set():
            return
        for response in stream:
            self._take_answer(response)

    def _take_answer(self, response: netplane_service_pb2.WatchTrafficResponse) -> None:
        """Join a first answer to its wake."""
        self._join(lambda now: self._joiner.first_answer(response.first_answer, now))

    def _join(self, take: Callable[[float], list[Noticed]]) -> None:
        """Give the joiner something, and tell the wakes that are complete."""
        with self._changed:
            complete = take(time.monotonic())
            self._changed.notify_all()
        self._tell(complete)

    def _expire_wakes(self) -> None:
        """Tell of wakes whose answer did not come in time."""
        while not self._stopping.is_set():
            with self._changed:
                expiry = self._joiner.next_expiry()
                self._changed.wait(None if expiry is None else max(0.0, expiry - time.monotonic()))
                late = self._joiner.expire(time.monotonic())
            self._tell(late)

    def _tell(self, noticed: list[Noticed]) -> None:
        """Record wakes, and tell watchers of them."""
        for each in noticed:
            self._view.put_wake(each.notice)
            with tracing.use(self._wakespans.record(each)):
                self._chronicle.wake_told(each)
            self._catalog.tell_wake(each.function_id, each.notice)
