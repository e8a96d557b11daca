# SPDX-License-Identifier: Apache-2.0
"""What the process of the netplane is made of."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless.netplane.v1 import netplane_service_pb2_grpc
from aetherless_netplane.endpoints import Endpoints
from aetherless_netplane.plane import Plane
from aetherless_netplane.routes import Routes
from aetherless_netplane.servicer import NetplaneServicer

if TYPE_CHECKING:
    import grpc

    from aetherless_common.settings import Settings


class NetplaneService:
    """The service, for ``aetherless_common.server.run_service``.

    Args:
        settings: the orchestrator's settings.
    """

    def __init__(self, settings: Settings) -> None:
        self._plane = Plane(settings)

    def start(self) -> None:
        """Adopt what is found; follow the host."""
        self._plane.start()

    def register(self, server: grpc.Server) -> None:
        """Add the servicer to the server."""
        servicer = NetplaneServicer(self._plane, Endpoints(self._plane), Routes(self._plane))
        netplane_service_pb2_grpc.add_NetplaneServiceServicer_to_server(servicer, server)

    def stop(self) -> None:
        """End the watches and the threads."""
        self._plane.stop()
