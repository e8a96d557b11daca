# SPDX-License-Identifier: Apache-2.0
"""The orchestrator's range of outer addresses: claimed by routes, told apart by their metric.

The claim is an ``unreachable`` route of the lowest priority: a packet for a dead sandbox ends at it
instead of leaving by the default gateway. Its metric holds the orchestrator's id, so that the
kernel's table alone says who owns which range, whatever files were lost.
"""

from __future__ import annotations

import errno
import socket
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)
from typing import TYPE_CHECKING, Any

from pyroute2.netlink.exceptions import NetlinkError

from aetherless_netplane import errors
from aetherless_netplane.addresses import RANGES, OuterRange, candidates
from aetherless_netplane.links import NODAD_NOPREFIXROUTE, typed
from aetherless_netplane.netlink import IPRoute, Netlink

if TYPE_CHECKING:
    from collections.abc import Iterable

METRIC_BASE = 0xAE000000
ID_MASK = 0xFFFFFF
UNREACHABLE = 7  # RTN_UNREACHABLE
BROADEST = {4: 8, 6: 16}  # a route wider than this is a default route in disguise
LOOPBACK = 1  # the index of lo, in every namespace

Network = IPv4Network | IPv6Network


@dataclass(frozen=True, slots=True)
class Use:
    """One address or route of the host."""

    network: Network
    by: str
    link: str = ""
    metric: int = 0

    @property
    def owner(self) -> int | None:
        """The orchestrator whose claim this is, as a number; None for anything else."""
        claim = self.metric & ~ID_MASK == METRIC_BASE
        return self.metric & ID_MASK if claim else None


def uses(ipr: Netlink) -> list[Use]:
    """Return the host's addresses, and its routes in all tables but ``local``."""
    names = dict(socket.if_nameindex())
    found = []
    for message in ipr.get_addr():
        attrs = dict(message["attrs"])
        address = attrs.get("IFA_LOCAL") or attrs["IFA_ADDRESS"]
        link = names.get(message["index"], str(message["index"]))
        found.append(Use(ip_network(address), f"address {address} on {link}", link))
    for family in (socket.AF_INET, socket.AF_INET6):
        found += [_use_of_route(m, names) for m in ipr.get_routes(family=family) if _counts(m)]
    return found


def _counts(message: Any) -> bool:
    """Tell whether a route is one that could clash."""
    return dict(message["attrs"]).get("RTA_DST") is not None and message["table"] != 255  # noqa: PLR2004


def _use_of_route(message: Any, names: dict[int, str]) -> Use:
    attrs = dict(message["attrs"])
    network = ip_network((attrs["RTA_DST"], message["dst_len"]))
    link = names.get(attrs.get("RTA_OIF", 0), "")
    return Use(
        network, f"route {network} by {link or 'no link'}", link, attrs.get("RTA_PRIORITY", 0)
    )


def clash(outer: OuterRange, found: Iterable[Use], own_links: str) -> Use | None:
    """Return the first use of a range that is not this orchestrator's own."""
    ranges = {4: outer.ipv4, 6: outer.ipv6}
    for use in found:
        version = use.network.version
        if use.network.prefixlen < BROADEST[version] or use.link.startswith(own_links):
            continue
        if use.network.overlaps(ranges[version]):  # type: ignore[arg-type]  # same version
            return use
    return None


def claimed(orchestrator_id: str, found: Iterable[Use]) -> OuterRange | None:
    """Return the range that this orchestrator has claimed."""
    own = int(orchestrator_id, 16)
    networks = {use.network for use in found if use.owner == own}
    return next((r for r in map(OuterRange, range(RANGES)) if r.ipv4 in networks), None)


def claim(orchestrator_id: str) -> OuterRange:
    """Return the orchestrator's range; claim one, if it has none.

    The id chooses; a range that another orchestrator of this host has is passed over.

    Raises:
        FailedPrecondition: ADDRESS_RANGE_IN_USE, something else uses the chosen range.
    """
    with IPRoute() as ipr:
        outer = claimed(orchestrator_id, uses(ipr))
        if outer is None:
            outer = _claim_new(ipr, orchestrator_id)
        _add_routes(ipr, outer, orchestrator_id)
        _add_host_addresses(ipr, outer)
    return outer


def _claim_new(ipr: Netlink, orchestrator_id: str) -> OuterRange:
    """Claim the first range that nobody has; of two claims at once the lower id's stays."""
    own = int(orchestrator_id, 16)
    last = ""
    for outer in candidates(orchestrator_id):
        use = clash(outer, _others(ipr, own), f"ae{orchestrator_id}")
        if use is not None and not _is_orchestrators(use, outer):
            raise errors.address_range_in_use(str(outer.ipv4), use.by)
        if use is not None:
            last = use.by
            continue
        _add_routes(ipr, outer, orchestrator_id)
        rivals = [u.owner for u in uses(ipr) if u.network == outer.ipv4 and u.owner is not None]
        if min(rivals) == own:
            return outer
        _delete_routes(ipr, outer, orchestrator_id)
    raise errors.address_range_in_use("198.18.0.0/16", f"other orchestrators, at last {last}")


def _others(ipr: Netlink, own: int) -> list[Use]:
    return [use for use in uses(ipr) if use.owner != own]


def _is_orchestrators(use: Use, outer: OuterRange) -> bool:
    """Tell whether a clashing use is another orchestrator's claim, or hangs on one of its links."""
    hosts = (ip_network(outer.host_ipv4), ip_network(outer.host_ipv6))
    name = use.link.removeprefix("ae")
    return use.owner is not None or use.network in hosts or (use.link != name and len(name) > 6)  # noqa: PLR2004


def _add_routes(ipr: Netlink, outer: OuterRange, orchestrator_id: str) -> None:
    for network in (outer.ipv4, outer.ipv6):
        with typed(f"adding the unreachable route {network}"):
            _tolerating(errno.EEXIST, ipr, "add", network, orchestrator_id)


def _delete_routes(ipr: Netlink, outer: OuterRange, orchestrator_id: str) -> None:
    for network in (outer.ipv4, outer.ipv6):
        with typed(f"deleting the unreachable route {network}"):
            _tolerating(errno.ESRCH, ipr, "del", network, orchestrator_id)


def _tolerating(
    tolerated: int, ipr: Netlink, command: str, network: Network, orchestrator_id: str
) -> None:
    """Add or delete a claim, which may be so already."""
    family = socket.AF_INET if network.version == 4 else socket.AF_INET6  # noqa: PLR2004
    metric = METRIC_BASE | int(orchestrator_id, 16)
    try:
        ipr.route(command, family=family, dst=str(network), type=UNREACHABLE, priority=metric)
    except NetlinkError as error:
        if error.code != tolerated:
            raise


def _add_host_addresses(ipr: Netlink, outer: OuterRange) -> None:
    """Give the host the source addresses of its connections to sandboxes, on lo."""
    for address in (outer.host_ipv4, outer.host_ipv6):
        with typed(f"adding {address} to lo"):
            try:
                ipr.addr(
                    "add",
                    index=LOOPBACK,
                    address=str(address),
                    prefixlen=address.max_prefixlen,
                    flags=NODAD_NOPREFIXROUTE,
                )
            except NetlinkError as error:
                if error.code != errno.EEXIST:
                    raise


def release(orchestrator_id: str) -> None:
    """Give the range back: routes and host addresses, if there are any."""
    with IPRoute() as ipr:
        outer = claimed(orchestrator_id, uses(ipr))
        if outer is None:
            return
        for address in (outer.host_ipv4, outer.host_ipv6):
            try:
                ipr.addr(
                    "del", index=LOOPBACK, address=str(address), prefixlen=address.max_prefixlen
                )
            except NetlinkError as error:
                if error.code != errno.EADDRNOTAVAIL:
                    raise errors.link_failed(f"deleting {address}", error.code) from error
        _delete_routes(ipr, outer, orchestrator_id)


def host_addresses() -> tuple[list[IPv4Address], list[IPv6Address]]:
    """Return the addresses of this namespace, without 127.0.0.0/8 and ::1."""
    with IPRoute() as ipr:
        found = [dict(m["attrs"]) for m in ipr.get_addr()]
    addresses = [ip_address(a.get("IFA_LOCAL") or a["IFA_ADDRESS"]) for a in found]
    usable = [a for a in addresses if not a.is_loopback]
    return (
        [a for a in usable if isinstance(a, IPv4Address)],
        [a for a in usable if isinstance(a, IPv6Address)],
    )
