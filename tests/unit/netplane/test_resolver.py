# SPDX-License-Identifier: Apache-2.0
"""Which resolver the constant address stands for."""

from __future__ import annotations

from ipaddress import IPv4Address
from typing import TYPE_CHECKING

import pytest

from aetherless_netplane.resolver import nameservers, upstream

if TYPE_CHECKING:
    from pathlib import Path

SYSTEMD = "# stub\nnameserver 127.0.0.53\noptions edns0\n"


def files(tmp_path: Path, *texts: str) -> tuple[Path, Path]:
    """Write the host's resolv.conf and systemd's list; a missing text is a missing file."""
    paths = (tmp_path / "resolv.conf", tmp_path / "systemd.conf")
    for path, text in zip(paths, texts, strict=False):
        path.write_text(text)
    return paths


def test_the_host_s_first_resolver_is_asked(tmp_path: Path) -> None:
    """IPv6 resolvers are passed over: sandboxes have no way out by IPv6."""
    text = "search x\nnameserver fd00::53\nnameserver 192.0.2.1\nnameserver 192.0.2.2\n"
    assert upstream({}, files(tmp_path, text)) == IPv4Address("192.0.2.1")


def test_behind_systemd_s_stub_its_real_resolver_is_asked(tmp_path: Path) -> None:
    """A loopback stub can't be reached from a sandbox."""
    found = upstream({}, files(tmp_path, SYSTEMD, "nameserver 192.0.2.9\n"))
    assert found == IPv4Address("192.0.2.9")


def test_there_may_be_none(tmp_path: Path) -> None:
    """With only a loopback resolver of another kind, or no file, there is no upstream."""
    assert upstream({}, files(tmp_path, "nameserver 127.0.0.1\n")) is None
    assert upstream({}, (tmp_path / "a", tmp_path / "b")) is None


def test_the_environment_wins(tmp_path: Path) -> None:
    """AETHER_DNS_UPSTREAM is used as it is; nonsense is an error, not ignored."""
    paths = files(tmp_path, "nameserver 192.0.2.1\n")
    assert upstream({"AETHER_DNS_UPSTREAM": "192.0.2.7"}, paths) == IPv4Address("192.0.2.7")
    with pytest.raises(ValueError, match="nonsense"):
        upstream({"AETHER_DNS_UPSTREAM": "nonsense"}, paths)


def test_odd_lines_are_passed_over() -> None:
    """Comments, missing and scoped addresses are no resolvers."""
    text = "#nameserver 192.0.2.1\nnameserver\nnameserver fe80::1%eth0\n nameserver 192.0.2.3\n"
    assert nameservers(text) == [IPv4Address("192.0.2.3")]
