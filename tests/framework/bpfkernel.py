# SPDX-License-Identifier: Apache-2.0
"""The translation programs in the kernel with two endpoints, for tests that run them on frames."""

from __future__ import annotations

from ctypes import c_uint8, c_uint32
from typing import TYPE_CHECKING

from aetherless_netplane import libbpf
from aetherless_netplane.addresses import OuterRange
from aetherless_netplane.layout import (
    ROUTE_IPV4,
    ROUTE_LIVE,
    EndpointData,
    Ipv4,
    Ipv6,
    RouteData,
    StateData,
)
from aetherless_netplane.maps import BpfMap
from aetherless_netplane.programs import Programs, constants_for
from aetherless_netplane.tables import Tables

if TYPE_CHECKING:
    from pathlib import Path

LOOPBACK = 1  # the link that BPF_PROG_TEST_RUN pretends a packet came by
SIBLING = 4242
SLOT, SIBLING_SLOT = 2, 3
PORT = 8080
OUTER = OuterRange(5)
FlowKey = c_uint8 * 24  # struct flow_key
FlowValue = c_uint8 * 16  # struct flow


class Kernel:
    """The loaded programs and their maps.

    Arguments:
        folder: A mounted bpffs.
        objects: Where the .bpf.o files are.
    """

    def __init__(self, folder: Path, objects: Path) -> None:
        self.programs = Programs(folder, objects, constants_for(1, OUTER))
        self.programs.load()
        self.tables = Tables(self.programs.maps_dir)
        self.flows = BpfMap(str(self.programs.maps_dir / "flows"), FlowKey, FlowValue)

    def reset(self) -> None:
        """Make the two endpoints and the route anew; no connection is known."""
        for ifindex, slot in ((LOOPBACK, SLOT), (SIBLING, SIBLING_SLOT)):
            data = EndpointData(
                outer_ipv4=Ipv4(*OUTER.ipv4_of(slot).packed),
                outer_ipv6=Ipv6(*OUTER.ipv6_of(slot).packed),
                slot=slot,
                trigger_port=PORT,
                route_port=PORT,
            )
            self.tables.put_endpoint(ifindex, data, cookie=1000 + slot)
        self.tables.delete_route(PORT)
        self.tables.put_route(PORT, RouteData(flags=ROUTE_IPV4 | ROUTE_LIVE))
        for key in self.flows.keys():  # noqa: SIM118  # not a dict
            self.flows.delete(key)

    def run(self, program: str, frame: bytes, repeat: int = 1) -> tuple[int, bytes]:
        """Run a program on a frame; return its verdict and the frame afterwards."""
        verdict, out, _ = libbpf.run_on_packet(self.programs.tc[program], frame, repeat)
        return verdict, out

    def state(self) -> StateData:
        """Return the state of the first endpoint."""
        found = self.tables.states.get(c_uint32(SLOT))
        assert found is not None
        return found

    def close(self) -> None:
        """Close the descriptors."""
        self.flows.close()
        self.tables.close()
        self.programs.close()
