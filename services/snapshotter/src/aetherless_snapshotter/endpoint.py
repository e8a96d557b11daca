# SPDX-License-Identifier: Apache-2.0
"""Where a sandbox is reached, and the descriptors of it that only the host can make."""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_snapshotter import mountfd, netns

if TYPE_CHECKING:
    from contextlib import ExitStack
    from pathlib import Path

_TAP_BUFFER = 8 << 20
_SO_RCVBUFFORCE = 33
_SOL_PACKET = 263
_PACKET_VNET_HDR = 15
_PACKET_QDISC_BYPASS = 20


@dataclass(frozen=True)
class Endpoint:
    """Where a sandbox is reached, as the netplane made it.

    Attributes:
        host_link: the host's end of the sandbox's link.
        state_map: the pinned BPF map the init publishes its state in; None publishes nothing.
        slot: the instance's index in that map.
        inner_ipv4: the inner address whose local route is the gate.
        inner_ipv6: the same for IPv6; "" when there is none.
    """

    host_link: str
    state_map: Path | None
    slot: int
    inner_ipv4: str
    inner_ipv6: str


def open_endpoint(endpoint: Endpoint, sandbox_netns: Path, handed: ExitStack) -> list[int]:
    """Return the descriptors of tap, packet socket on the link and state map; ``handed`` closes.

    The tap belongs to the sandbox's network namespace; its large buffer takes the host's rights.

    Raises:
        OSError: the namespace, the link or the map is not there.
        ValueError: the map is not a state map with that slot.
    """
    tap = netns.make_socket(sandbox_netns, socket.AF_PACKET, socket.SOCK_RAW)
    handed.callback(tap.close)
    tap.setsockopt(socket.SOL_SOCKET, _SO_RCVBUFFORCE, _TAP_BUFFER)
    link = socket.socket(socket.AF_PACKET, socket.SOCK_RAW | socket.SOCK_CLOEXEC, 0)
    handed.callback(link.close)
    link.setsockopt(_SOL_PACKET, _PACKET_VNET_HDR, 1)
    link.setsockopt(_SOL_PACKET, _PACKET_QDISC_BYPASS, 1)
    link.bind((endpoint.host_link, 0))
    descriptors = [tap.fileno(), link.fileno()]
    if endpoint.state_map is not None:
        descriptors.append(mountfd.open_state_map(endpoint.state_map, endpoint.slot))
        handed.callback(os.close, descriptors[-1])
    return descriptors
