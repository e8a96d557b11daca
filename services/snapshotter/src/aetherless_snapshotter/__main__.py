# SPDX-License-Identifier: Apache-2.0
"""The snapshotter's process: wiring, flags (``--cleanup``) and signals."""

from __future__ import annotations

import os
import sys
import threading
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import snapshotter_service_pb2_grpc as pb_grpc
from aetherless_common.server import run_service
from aetherless_snapshotter import (
    criu,
    criu_folder,
    files,
    fingerprint,
    hosttrial,
    images,
    rootfs,
    sandbox,
)
from aetherless_snapshotter.builder import Builder
from aetherless_snapshotter.channels import ChannelService
from aetherless_snapshotter.hostcheck import HostChecks
from aetherless_snapshotter.idranges import IdRanges
from aetherless_snapshotter.instances import Instances
from aetherless_snapshotter.logs import Logs
from aetherless_snapshotter.roots import Roots
from aetherless_snapshotter.servicer import SnapshotterServicer
from aetherless_snapshotter.store import SnapshotStore
from aetherless_snapshotter.workshop import Workshop

if TYPE_CHECKING:
    import grpc

    from aetherless_common.settings import Settings
    from aetherless_snapshotter.log_rotation import Rotation


class Snapshotter:
    """The service, as ``run_service`` drives it."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._rotation: Rotation | None = None
        self._instances: Instances | None = None
        self._servicer: SnapshotterServicer | None = None

    def start(self) -> None:
        """Look for CRIU, adopt the clones that live, remove what was half done."""
        settings = self._settings
        images.load_modules(settings.prefix)
        builder = _builder(settings)
        builder.store.clean()
        builder.roots.clean()
        instances = Instances(settings.runtime_dir / "instances", settings.cgroup_name, builder)
        self._instances = instances
        instances.adopt_all()
        instances.stale.start()
        checks = HostChecks(
            settings.prefix,
            settings.state_dir / "host-check.json",
            lambda: hosttrial.attempt(builder),
        )
        self._servicer = SnapshotterServicer(
            instances, builder.store, builder.roots, builder.logs, checks
        )
        self._rotation = builder.logs.watch()
        threading.Thread(target=self._rotation.run, name="logs", daemon=True).start()

    def register(self, server: grpc.Server) -> None:
        """Add the servicer."""
        assert self._servicer is not None  # noqa: S101 # start() came first
        pb_grpc.add_SnapshotterServiceServicer_to_server(self._servicer, server)

    def stop(self) -> None:
        """End the watches and let go of the sandboxes; they live on."""
        if self._rotation is not None:
            self._rotation.stop()
        if self._instances is not None:
            self._instances.close()


def _builder(settings: Settings) -> Builder:
    """Wire what makes sandboxes."""
    binary = settings.prefix / "criu"
    host = fingerprint.of_host(criu.check_version(binary))
    workshop = Workshop(
        store=SnapshotStore(settings.snapshot_root, host),
        logs=Logs(settings.state_dir / "functions-log"),
        criu_binary=binary,
        fingerprint=host,
        channels=ChannelService(settings),
    )
    return Builder(
        settings=settings,
        workshop=workshop,
        ids=IdRanges(settings.state_dir / "id-ranges.json", int(settings.orchestrator_id, 16)),
        roots=Roots(settings.state_dir / "roots"),
        criu_folder=criu_folder.prepare(settings),
        etc_folder=rootfs.write_etc(settings),
    )


def cleanup(settings: Settings) -> None:
    """End every sandbox and remove all that is on the host outside the state folder.

    Of the state folder the copies of the functions' folders go too: they belong to the snapshots.
    """
    sandbox.delete_all(settings.runtime_dir, settings.cgroup_name)
    for shared in ("criu", "etc", "instances"):
        files.remove_tree(settings.runtime_dir / shared)
    if os.environ.get("AETHER_KEEP_SNAPSHOTS"):  # aetherctl down --keep-snapshots
        return
    files.remove_tree(settings.snapshot_root)
    if settings.snapshot_dir.is_dir() and not any(settings.snapshot_dir.iterdir()):
        settings.snapshot_dir.rmdir()
    files.remove_tree(settings.state_dir / "roots")


if __name__ == "__main__":
    sys.exit(run_service("snapshotter", Snapshotter, cleanup))
