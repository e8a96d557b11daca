# SPDX-License-Identifier: Apache-2.0
"""The smallest service, run as a process by test_server.py."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

import structlog

from aetherless.ipc.v1 import ipc_service_pb2_grpc as rpc
from aetherless_common.server import run_service

if TYPE_CHECKING:
    import grpc

    from aetherless_common.settings import Settings

log = structlog.get_logger()


class Service(rpc.IpcServiceServicer):
    """Serves nothing but health and reflection."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    def start(self) -> None:
        """Leave a file for the clean-up to remove."""
        self._settings.runtime_dir.joinpath("owned").touch()

    def register(self, server: grpc.Server) -> None:
        """Add this servicer."""
        rpc.add_IpcServiceServicer_to_server(self, server)

    def stop(self) -> None:
        """Say that the end was asked for, and remove the file."""
        log.info("stopped by the test's service")
        cleanup(self._settings)


def cleanup(settings: Settings) -> None:
    """Remove the file of ``start``."""
    settings.runtime_dir.joinpath("owned").unlink(missing_ok=True)


if __name__ == "__main__":
    sys.exit(run_service("ipc", Service, cleanup))
