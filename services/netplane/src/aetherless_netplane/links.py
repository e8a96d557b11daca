# SPDX-License-Identifier: Apache-2.0
"""A sandbox's link: the veth pair, its addresses, routes and neighbours, by netlink.

Everything hangs on the pair: when either end goes, the kernel removes all of it.
"""

from __future__ import annotations

import re
import socket
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from pyroute2.netlink.exceptions import NetlinkError

from aetherless_netplane import errors
from aetherless_netplane.addresses import (
    GATEWAY_IPV4,
    GATEWAY_IPV6,
    HOST_MAC,
    INNER_IPV4,
    INNER_IPV6,
    INNER_LINK,
    INNER_MAC,
)
from aetherless_netplane.netlink import IPRoute, Netlink

if TYPE_CHECKING:
    from collections.abc import Iterator
    from ipaddress import IPv4Address, IPv6Address

    from aetherless_netplane.addresses import OuterRange

NODAD_NOPREFIXROUTE = 0x02 | 0x200
PERMANENT = 0x80  # NUD_PERMANENT
SCOPE_LINK = 253
ADDRESS_GENERATION_NONE = "1"
SLOT = re.compile(r"[0-9a-f]{1,3}")


@contextmanager
def typed(operation: str) -> Iterator[None]:
    """Turn what the kernel refuses into LINK_FAILED."""
    try:
        yield
    except NetlinkError as error:
        raise errors.link_failed(operation, error.code) from error
    except OSError as error:
        raise errors.link_failed(operation, error.errno) from error


def create_pair(ipr: Netlink, name: str, namespace: int) -> int:
    """Make the pair, one end in the namespace; return the host end's index.

    The MACs are part of the message that makes it, so that nothing (udev) chooses others.
    """
    with typed(f"creating link {name}"):
        ipr.link(
            "add",
            ifname=name,
            kind="veth",
            address=HOST_MAC,
            peer={"ifname": INNER_LINK, "address": INNER_MAC, "net_ns_fd": namespace},
        )
        return socket.if_nametoindex(name)


def quiet_ipv6(name: str) -> None:
    """Let the calling thread's namespace use IPv6 on a link, without link-local chatter."""
    folder = Path("/proc/sys/net/ipv6/conf") / name
    with typed(f"configuring IPv6 on {name}"):
        (folder / "disable_ipv6").write_text("0")
        (folder / "addr_gen_mode").write_text(ADDRESS_GENERATION_NONE)


def connect_host(ipr: Netlink, ifindex: int, outer: OuterRange, slot: int) -> None:
    """Bring the host's end up; lead the outer addresses to it."""
    with typed("bringing the host's end up"):
        ipr.link("set", index=ifindex, state="up")
        for address, source in (
            (outer.ipv4_of(slot), outer.host_ipv4),
            (outer.ipv6_of(slot), outer.host_ipv6),
        ):
            _neighbour(ipr, ifindex, address, INNER_MAC)
            ipr.route(
                "add",
                family=_family(address),
                dst=f"{address}/{address.max_prefixlen}",
                oif=ifindex,
                prefsrc=str(source),
                scope=SCOPE_LINK if address.version == 4 else 0,  # noqa: PLR2004
            )


def connect_sandbox() -> None:
    """Configure the end inside; the calling thread is in the sandbox's namespace.

    The gate is open afterwards: each address brought its entry in the local table.
    """
    quiet_ipv6(INNER_LINK)
    with typed("configuring the link inside"), IPRoute() as ipr:
        ipr.link("set", index=socket.if_nametoindex("lo"), state="up")
        ifindex = socket.if_nametoindex(INNER_LINK)
        ipr.link("set", index=ifindex, state="up")
        for address, gateway in ((INNER_IPV4, GATEWAY_IPV4), (INNER_IPV6, GATEWAY_IPV6)):
            family, length = _family(address), address.max_prefixlen
            ipr.addr(
                "add",
                family=family,
                index=ifindex,
                address=str(address),
                prefixlen=length,
                flags=NODAD_NOPREFIXROUTE,
            )
            _neighbour(ipr, ifindex, gateway, HOST_MAC)
            scope = SCOPE_LINK if address.version == 4 else 0  # noqa: PLR2004
            ipr.route("add", family=family, dst=f"{gateway}/{length}", oif=ifindex, scope=scope)
            ipr.route("add", family=family, dst="default", gateway=str(gateway), oif=ifindex)


def delete(ipr: Netlink, ifindex: int) -> None:
    """Delete a link, if it is there; the other end and all that hangs on them go, too."""
    try:
        ipr.link("del", index=ifindex)
    except NetlinkError as error:
        if error.code not in {19, 22}:  # ENODEV, EINVAL: gone with its namespace
            raise errors.link_failed(f"deleting link {ifindex}", error.code) from error


def ours(prefix: str) -> dict[str, int]:
    """Return the index of each link of this namespace whose name begins so."""
    return {name: index for index, name in socket.if_nameindex() if name.startswith(prefix)}


def taken_slots(prefix: str) -> set[int]:
    """Return the slots whose links are there; a link that CheckHost tries is none."""
    names = (name.removeprefix(prefix) for name in ours(prefix))
    return {int(name, 16) for name in names if SLOT.fullmatch(name)}


def _neighbour(ipr: Netlink, ifindex: int, address: IPv4Address | IPv6Address, mac: str) -> None:
    """Make a permanent neighbour: no address is ever asked for on these links."""
    ipr.neigh(
        "replace",
        family=_family(address),
        dst=str(address),
        lladdr=mac,
        ifindex=ifindex,
        state=PERMANENT,
    )


def _family(address: IPv4Address | IPv6Address) -> int:
    return socket.AF_INET if address.version == 4 else socket.AF_INET6  # noqa: PLR2004
