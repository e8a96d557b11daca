# SPDX-License-Identifier: Apache-2.0
"""What the making of a snapshot works on, and with."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import threading
    from collections.abc import Callable
    from pathlib import Path

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.channels import ChannelService
    from aetherless_snapshotter.fingerprint import Fingerprint
    from aetherless_snapshotter.logs import Logs
    from aetherless_snapshotter.sandbox import Sandbox
    from aetherless_snapshotter.sandbox_events import RootExited
    from aetherless_snapshotter.sandbox_spec import Tree
    from aetherless_snapshotter.store import SnapshotStore
    from aetherless_snapshotter.workload import Program


@dataclass
class Golden:
    """A golden process tree: where it lives, what it runs, and how it ended.

    Attributes:
        exited: set when the root process ended; ``exit`` says how.
    """

    sandbox: Sandbox
    workload: instance_pb2.Workload
    program: Program
    trees: tuple[Tree, ...]
    exited: threading.Event
    exit: Callable[[], RootExited | None]


@dataclass
class Workshop:
    """What the making of snapshots needs of the service."""

    store: SnapshotStore
    logs: Logs
    criu_binary: Path
    fingerprint: Fingerprint
    channels: ChannelService
