# SPDX-License-Identifier: Apache-2.0
"""A function's channel as far as sandboxes have to do with it.

The ipc service makes the side socket in the instance's channel folder, which the sandbox sees; it
lets a golden's program go before the checkpoint, since an attachment can't be restored.
"""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

from aetherless.ipc.v1 import ipc_service_pb2, ipc_service_pb2_grpc
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.channels import connect
from aetherless_snapshotter import errors, processes

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_common.settings import Settings
    from aetherless_snapshotter.workshop import Golden

#: In an instance's folder.
FOLDER = "channel"
FOLDER_MODE = 0o755
_POLL_SECONDS = 0.002
#: How long calls that a golden makes of others may go on, in seconds.
_DRAIN_SECONDS = 1
#: How long a program may take to let go of a channel that was closed.
_RELEASE_SECONDS = 5.0


class ChannelService:
    """The ipc service, as far as it is needed here; connects at the first call.

    Args:
        settings: where its socket is.
    """

    def __init__(self, settings: Settings) -> None:
        self._stub = ipc_service_pb2_grpc.IpcServiceStub(connect(settings, "ipc"))

    def detach(self, function_id: str, instance_id: str) -> None:
        """Have a golden let go of its function's channel, and nobody of it attach any more.

        Raises:
            AetherlessError: as the service answers; PEER_UNREACHABLE.
        """
        request = ipc_service_pb2.DetachInstanceRequest(
            channel=f"channels/{function_id}", instance=f"instances/{instance_id}", force=True
        )
        request.drain_timeout.FromSeconds(_DRAIN_SECONDS)
        self._stub.DetachInstance(request, wait_for_ready=True)


def make_folder(instance_folder: Path) -> Path:
    """Make the folder of an instance's side socket; programs of the sandbox may look into it."""
    folder = instance_folder / FOLDER
    folder.mkdir(exist_ok=True)
    folder.chmod(FOLDER_MODE)
    return folder


def is_enough(golden: Golden) -> bool:
    """Tell whether a program is ready that serves its channel and that no warm-up asks by TCP."""
    workload = golden.workload
    unasked = workload.ipc and workload.warmup.kind == instance_pb2.WARMUP_KIND_NONE
    return unasked and bool(_holders(golden))


def let_go(golden: Golden, service: ChannelService) -> str:
    """Have a golden let go of its channel, so that it can be dumped; returns one line about it.

    Raises:
        AetherlessError: NOT_CHECKPOINTABLE, it does not; or as the ipc service answers.
    """
    function = golden.workload.function_id
    held = _holders(golden)
    service.detach(function, golden.sandbox.instance_id)
    until = time.monotonic() + _RELEASE_SECONDS
    while left := _holders(golden):
        if time.monotonic() >= until:
            cause = f"process {left[0]} keeps the region of a channel that was closed"
            remedy = "let go of the region when the side socket ends, as docs/ipc.md says"
            raise errors.not_checkpointable(function, cause, remedy)
        time.sleep(_POLL_SECONDS)
    return f"{len(held)} of its processes attached" if held else "nobody attached"


def _holders(golden: Golden) -> list[int]:
    """Return the golden's processes that have a region of its channel open or mapped."""
    name = f"/memfd:aether-{golden.workload.function_id} (deleted)"
    return [pid for pid in golden.sandbox.tree_processes() if processes.holds_file(pid, name)]
