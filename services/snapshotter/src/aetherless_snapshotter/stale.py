# SPDX-License-Identifier: Apache-2.0
"""Ends armed instances that could not be restored any more: what they rely on has changed.

An armed sandbox needs nobody, and looks at nothing before its first packet comes. So it is looked
at from here: when it was armed, now and then, and before it is woken by command. One that ended is
missed by whoever wanted it, and made anew.
"""

from __future__ import annotations

import contextlib
import queue
import threading
from typing import TYPE_CHECKING

import structlog

from aetherless_common.errors import (
    Aborted,
    AetherlessError,
    DataLoss,
    FailedPrecondition,
    NotFound,
)
from aetherless_snapshotter import errors
from aetherless_snapshotter.instance import ARMED, RUNNING, last_part
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_spec import SNAPSHOT_TARGET
from aetherless_snapshotter.store import check_host_files

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_snapshotter.live import Live, Table
    from aetherless_snapshotter.store import SnapshotStore

log = structlog.get_logger()
#: How long a change may go unnoticed, in seconds; a look takes some 50 microseconds an instance.
PERIOD = 5.0
_RETRY_SECONDS = 0.05
_JOIN_SECONDS = 5.0


class StaleWatch:
    """A thread that looks at armed instances.

    Args:
        table: the instances.
        store: their snapshots.
        end: ends an instance for a reason; the caller has it for itself.
    """

    def __init__(
        self, table: Table, store: SnapshotStore, end: Callable[[Live, str], None]
    ) -> None:
        self._table = table
        self._store = store
        self._end = end
        #: Ids to look at; None ends the thread.
        #: Ids that somebody else worked on.
        self._missed: set[str] = set()
        self._wanted: queue.SimpleQueue[str | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._run, name="stale", daemon=True)

    def start(self) -> None:
        """Look at all instances, then begin to watch them."""
        self._look_at_all()
        self._thread.start()

    def stop(self) -> None:
        """End the thread."""
        self._wanted.put(None)
        if self._thread.is_alive():
            self._thread.join(_JOIN_SECONDS)

    def look(self, instance_id: str) -> None:
        """Look at an instance soon."""
        self._wanted.put(instance_id)

    def check(self, live: Live) -> None:
        """Refuse an armed instance that can't be restored; it is ended soon.

        Raises:
            FailedPrecondition: SNAPSHOT_STALE or SNAPSHOT_INCOMPATIBLE.
            DataLoss: SNAPSHOT_CORRUPT.
        """
        if live.instance.state != ARMED:
            return
        try:
            self._check(live)
        except (FailedPrecondition, DataLoss):
            self.look(live.instance.instance_id)
            raise

    def _run(self) -> None:
        """Look at who was named, and at all when nobody was for a while."""
        while True:
            try:
                wanted = self._wanted.get(timeout=_RETRY_SECONDS if self._missed else PERIOD)
            except queue.Empty:
                self._look_at_missed() if self._missed else self._look_at_all()
                continue
            if wanted is None:
                return
            self._look(wanted)

    def _look_at_missed(self) -> None:
        missed, self._missed = self._missed, set()
        for instance_id in missed:
            self._look(instance_id)

    def _look_at_all(self) -> None:
        for live in self._table.all():
            self._look(live.instance.instance_id)

    def _look(self, instance_id: str) -> None:
        """End an instance that can't be restored; one that a call works on is looked at later."""
        live = self._table.get(instance_id)
        if live is None or live.instance.state not in (ARMED, RUNNING):
            return
        try:
            with contextlib.suppress(NotFound):  # its images are another one's, or none: see below
                self._store.glance(last_part(live.instance.snapshot))
            if live.instance.state == ARMED:
                self._check(live)
        except (FailedPrecondition, DataLoss) as error:
            self._end_or_miss(instance_id, error)
        except (AetherlessError, OSError) as error:
            log.warning("not looked at", instance=instance_id, error=str(error))

    def _end_or_miss(self, instance_id: str, why: FailedPrecondition | DataLoss) -> None:
        """End an instance; one that can't be ended now is looked at again."""
        try:
            self._end_stale(instance_id, why)
        except (AetherlessError, SandboxError, OSError) as error:
            self._missed.add(instance_id)
            log.warning("not ended", instance=instance_id, error=str(error))

    def _end_stale(self, instance_id: str, why: FailedPrecondition | DataLoss) -> None:
        """End an instance that is armed.

        One that runs is left alone, but out of damaged memory: then its tree is killed, so that its
        clients are reset, and it is ended once it has armed itself anew and nobody waits for it.
        """
        try:
            with self._table.working_on(instance_id) as live:
                if live.instance.state == ARMED:
                    log.warning("instance is stale", instance=instance_id, error=str(why))
                    self._condemn(live, why)
                    self._end(live, f"{why.reason}: {why.message}")
                elif live.instance.state == RUNNING and isinstance(why, DataLoss):
                    log.warning("instance is damaged", instance=instance_id, error=str(why))
                    live.sandbox.kill_processes()
        except Aborted:
            self._missed.add(instance_id)
        except AetherlessError as error:
            log.info("stale, and gone", instance=instance_id, error=str(error))

    def _condemn(self, live: Live, why: FailedPrecondition | DataLoss) -> None:
        """Keep what is known of a snapshot that can't be read any more."""
        if isinstance(why, DataLoss):
            snapshot_id = last_part(live.instance.snapshot)
            self._store.condemn(snapshot_id, live.instance.workload, why)

    def _check(self, live: Live) -> None:
        """Compare what an instance was made from with what there is."""
        snapshot_id = last_part(live.instance.snapshot)
        if live.host_files is None:
            live.host_files = self._store.check_host(snapshot_id).host_files
        check_host_files(snapshot_id, live.host_files)
        inside = (live.sandbox.root / SNAPSHOT_TARGET.removeprefix("/")).stat()
        try:
            here = self._store.images(snapshot_id).stat()
        except FileNotFoundError:
            here = None
        if here is None or (here.st_dev, here.st_ino) != (inside.st_dev, inside.st_ino):
            raise errors.snapshot_stale(
                snapshot_id, SNAPSHOT_TARGET, "its images", "other ones" if here else "none"
            )
