# SPDX-License-Identifier: Apache-2.0
"""Removes all that the netplane owns on the host, whether or not anything lives."""

from __future__ import annotations

from typing import TYPE_CHECKING

import structlog

from aetherless_common.errors import AetherlessError
from aetherless_netplane import bpffs, clients, firewall, hostnet, links
from aetherless_netplane.hostchanges import FORWARD, HostChanges, locked
from aetherless_netplane.netlink import IPRoute
from aetherless_netplane.records import FILE

if TYPE_CHECKING:
    from aetherless_common.settings import Settings

log = structlog.get_logger()


def cleanup(settings: Settings) -> None:
    """Remove pins, links, nftables table, routes, sysctl changes and files, found by name.

    A step that fails does not keep the others from being taken.

    Raises:
        AetherlessError: the first failure.
    """
    failures = []
    for step in (_pins, _links, _clients, _ports, _firewall, _range, _files):
        try:
            step(settings)
        except AetherlessError as error:
            log.warning("cleanup step failed", step=step.__name__, error=error.message)
            failures.append(error)
    if failures:
        raise failures[0]


def _pins(settings: Settings) -> None:
    bpffs.unmount(settings.bpf_dir)


def _links(settings: Settings) -> None:
    with IPRoute() as ipr:
        for ifindex in links.ours(settings.link_name(0)[:-1]).values():
            links.delete(ipr, ifindex)


def _clients(settings: Settings) -> None:
    """Reset the clients that still wait for a sandbox, before their packets could leave."""
    with IPRoute() as ipr:
        outer = hostnet.claimed(settings.orchestrator_id, hostnet.uses(ipr))
    if outer is not None:
        with links.typed("ending the clients"):
            clients.end_clients([outer.ipv4, outer.ipv6])


def _ports(settings: Settings) -> None:
    HostChanges(settings.host_changes_path).release_all_ports()


def _firewall(settings: Settings) -> None:
    with locked(FORWARD):
        firewall.remove(settings.nft_table)
        others = firewall.others_enabled_forwarding(settings.nft_table)
        HostChanges(settings.host_changes_path).restore_forwarding(others_enabled=others)


def _range(settings: Settings) -> None:
    hostnet.release(settings.orchestrator_id)


def _files(settings: Settings) -> None:
    (settings.runtime_dir / FILE).unlink(missing_ok=True)
