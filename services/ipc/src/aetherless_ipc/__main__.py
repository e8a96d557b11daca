# SPDX-License-Identifier: Apache-2.0
"""The ipc service's process: ``python -m aetherless_ipc``."""

from __future__ import annotations

import shutil
import sys
from typing import TYPE_CHECKING

from aetherless_common.server import run_service
from aetherless_ipc.broker import ipc_folder
from aetherless_ipc.core import stay_on_one_core
from aetherless_ipc.servicer import IpcServicer

if TYPE_CHECKING:
    from aetherless_common.settings import Settings


def cleanup(settings: Settings) -> None:
    """Remove the side sockets and the declarations; regions ended with their holders."""
    if ipc_folder(settings).exists():
        shutil.rmtree(ipc_folder(settings))


if __name__ == "__main__":
    stay_on_one_core()  # before gRPC starts its threads
    sys.exit(run_service("ipc", IpcServicer, cleanup))
