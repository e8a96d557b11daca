# SPDX-License-Identifier: Apache-2.0
"""Instances that sleep, and those that shall not: what the snapshotter is asked for."""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless.snapshotter.v1 import snapshotter_service_pb2_grpc
from aetherless_common.channels import connect
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from aetherless_common.settings import Settings
    from aetherless_ipc.attachment import Attachment

log = structlog.get_logger()
TOUCH_EVERY_S = 0.2


class Sleepers:
    """Wakes instances, and keeps those from falling asleep that calls are with.

    Args:
        settings: the orchestrator's.
    """

    def __init__(self, settings: Settings) -> None:
        self._channel = connect(settings, "snapshotter")
        self._stub = snapshotter_service_pb2_grpc.SnapshotterServiceStub(self._channel)
        self._used: dict[str, Attachment] = {}
        self._noted = threading.Event()
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._run, name="touch", daemon=True)

    def start(self) -> None:
        """Start the thread that touches."""
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._stop.set()
        self._noted.set()
        if self._thread.is_alive():
            self._thread.join()
        self._channel.close()

    def wake(self, instance: str) -> bool:
        """Wake an instance; return whether it had to be.

        Raises:
            AetherlessError: what the snapshotter says, or that it does not answer.
        """
        begun_ns = time.time_ns()
        request = pb.WakeInstanceRequest(name=f"instances/{instance}")
        woken = self._stub.WakeInstance(request).instance
        return bool(woken.last_wake.first_packet_time.ToNanoseconds() >= begun_ns)

    def note(self, attachment: Attachment) -> None:
        """Take note that an instance is in use: it is touched within a fifth of a second."""
        self._used[attachment.instance] = attachment
        if not self._noted.is_set():
            self._noted.set()

    def _run(self) -> None:
        """Touch what was used since the last time, and what has calls to answer."""
        while True:
            self._noted.wait()
            if self._stop.wait(TOUCH_EVERY_S):
                return
            self._noted.clear()
            for instance in list(self._used):
                attachment = self._used.pop(instance)
                self._touch(instance)
                if attachment.in_flight:
                    self.note(attachment)

    def _touch(self, instance: str) -> None:
        """Touch an instance; one that is gone needs nothing."""
        try:
            self._stub.TouchInstance(pb.TouchInstanceRequest(name=f"instances/{instance}"))
        except AetherlessError as error:
            log.debug("not touched", instance=instance, error=str(error))
