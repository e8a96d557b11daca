# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802  # RPCs are named by the contract
"""A snapshotter whose instances are peers: waking one starts its process."""

from __future__ import annotations

import threading
from typing import TYPE_CHECKING, Any

from aetherless.snapshotter.v1 import (
    instance_pb2,
    snapshotter_service_pb2,
    snapshotter_service_pb2_grpc,
)

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.errors import AetherlessError

LIMIT_S = 20.0


class Snapshotter(snapshotter_service_pb2_grpc.SnapshotterServiceServicer):
    """Wakes by calling a function; counts wakes and touches.

    Args:
        start: makes the peer; returns its process.
    """

    def __init__(self, start: Callable[[], Any]) -> None:
        self.wakes = 0
        self.touched: list[str] = []
        self.failure: AetherlessError | None = None
        self.free = threading.Event()  # wakes wait for it
        self.free.set()
        self._start = start
        self._lock = threading.Lock()
        self._process: Any = None
        self._instance = instance_pb2.Instance()

    def start(self) -> None:
        """See aetherless_common.server.Service."""

    def stop(self) -> None:
        """See aetherless_common.server.Service."""

    def register(self, server: Any) -> None:
        """See aetherless_common.server.Service."""
        snapshotter_service_pb2_grpc.add_SnapshotterServiceServicer_to_server(self, server)

    def kill(self) -> None:
        """End the instance's process; it can be woken again."""
        with self._lock:
            if self._process is not None:
                # SAFETY: the test's own child, by its handle.
                self._process.child.kill()
                self._process.child.wait(20)

    def WakeInstance(self, request: Any, _: Any) -> Any:
        """Start the process unless it runs."""
        self.free.wait(LIMIT_S)
        with self._lock:
            if self.failure is not None:
                raise self.failure
            if self._process is None or self._process.child.poll() is not None:
                self.wakes += 1
                self._instance.name = request.name
                self._instance.last_wake.first_packet_time.GetCurrentTime()
                self._process = self._start()
            return snapshotter_service_pb2.WakeInstanceResponse(instance=self._instance)

    def TouchInstance(self, request: Any, _: Any) -> Any:
        """Take note."""
        self.touched.append(request.name)
        return snapshotter_service_pb2.TouchInstanceResponse()
