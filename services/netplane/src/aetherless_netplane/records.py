# SPDX-License-Identifier: Apache-2.0
"""What the netplane must remember beside the kernel's own state, in ``netplane.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING, Self

from aetherless_common.settings import write_atomically

if TYPE_CHECKING:
    from pathlib import Path

FILE = "netplane.json"


@dataclass(slots=True, kw_only=True)
class EndpointRecord:
    """One endpoint.

    Args:
        endpoint_id: its id.
        netns_path: where the sandbox's network namespace was when it was attached.
        cookie: that namespace's cookie, unique until the next boot.
        trigger_port: where the function listens; zero for nowhere.
        slot: its place in the range.
        ifindex: the host's end of its link.
    """

    endpoint_id: str
    netns_path: str
    cookie: int
    trigger_port: int
    slot: int
    ifindex: int

    @property
    def name(self) -> str:
        """The resource name."""
        return f"endpoints/{self.endpoint_id}"


@dataclass(slots=True, kw_only=True)
class RouteRecord:
    """One route.

    Args:
        port: the trigger port.
        function_id: the function it belongs to.
        endpoint_id: the endpoint; empty when there is none.
        families: RouteFamilies of the contract, as its number.
    """

    port: int
    function_id: str
    endpoint_id: str
    families: int

    @property
    def name(self) -> str:
        """The resource name."""
        return f"routes/{self.port}"


@dataclass(slots=True)
class Records:
    """All endpoints by id, all routes by port."""

    endpoints: dict[str, EndpointRecord] = field(default_factory=dict)
    routes: dict[int, RouteRecord] = field(default_factory=dict)

    @classmethod
    def read(cls, path: Path) -> Self:
        """Return what was stored; nothing when there is no file."""
        try:
            stored = json.loads(path.read_text())
        except FileNotFoundError:
            return cls()
        endpoints = [EndpointRecord(**entry) for entry in stored["endpoints"]]
        routes = [RouteRecord(**entry) for entry in stored["routes"]]
        return cls({e.endpoint_id: e for e in endpoints}, {r.port: r for r in routes})

    def write(self, path: Path) -> None:
        """Store everything, in one step."""
        stored = {
            "endpoints": [asdict(e) for e in self.endpoints.values()],
            "routes": [asdict(r) for r in self.routes.values()],
        }
        write_atomically(path, json.dumps(stored, indent=1) + "\n")

    def route_to(self, endpoint_id: str) -> RouteRecord | None:
        """Return the route that leads to an endpoint."""
        return next((r for r in self.routes.values() if r.endpoint_id == endpoint_id), None)

    def endpoint_of_slot(self, slot: int) -> EndpointRecord | None:
        """Return the endpoint that has a slot."""
        return next((e for e in self.endpoints.values() if e.slot == slot), None)
