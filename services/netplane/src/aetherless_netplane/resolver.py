# SPDX-License-Identifier: Apache-2.0
"""Which resolver the functions' constant resolver address stands for today."""

from __future__ import annotations

import os
from ipaddress import AddressValueError, IPv4Address
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Mapping

HOST_CONF = Path("/etc/resolv.conf")
# systemd-resolved listens on a loopback stub; here it lists the resolvers behind it.
SYSTEMD_CONF = Path("/run/systemd/resolve/resolv.conf")
VARIABLE = "AETHER_DNS_UPSTREAM"


def nameservers(text: str) -> list[IPv4Address]:
    """Return the IPv4 resolvers of a resolv.conf, in its order."""
    found = []
    for line in text.splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == "nameserver":
            try:
                found.append(IPv4Address(words[1]))
            except AddressValueError:
                continue  # an IPv6 resolver: sandboxes ask by IPv4
    return found


def upstream(
    environment: Mapping[str, str] = os.environ, files: tuple[Path, ...] = (HOST_CONF, SYSTEMD_CONF)
) -> IPv4Address | None:
    """Return the resolver to ask: AETHER_DNS_UPSTREAM, else the host's first that is reachable.

    A resolver on the host's loopback can't be reached from a sandbox; then systemd's own list is
    read. None when there is no usable one (``CheckHost`` says so).

    Raises:
        ValueError: AETHER_DNS_UPSTREAM is not an IPv4 address.
    """
    if named := environment.get(VARIABLE):
        return IPv4Address(named)
    for path in files:
        for server in nameservers(_text(path)):
            if not server.is_loopback:
                return server
    return None


def _text(path: Path) -> str:
    try:
        return path.read_text()
    except OSError:
        return ""
