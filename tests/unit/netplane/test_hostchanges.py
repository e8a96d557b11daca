# SPDX-License-Identifier: Apache-2.0
"""Sysctls come back as they were, also with two orchestrators; files stand for /proc/sys."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless_netplane import hostchanges
from aetherless_netplane.hostchanges import (
    FORWARD,
    REDIRECTS,
    RESERVED,
    HostChanges,
    format_ports,
    parse_ports,
    read_sysctl,
)

if TYPE_CHECKING:
    from pathlib import Path


@pytest.fixture
def sysctls(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Give a folder that stands for /proc/sys, as on a host that does not forward."""
    root = tmp_path / "sys"
    values = {FORWARD: "0", REDIRECTS: "1", RESERVED: "22,3000-3002"}
    links = {f"net/ipv4/conf/{link}/forwarding": "0" for link in ("all", "lo", "eth0")}
    for name, value in {**values, **links, "net/ipv4/conf/vpn0/forwarding": "1"}.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(value + "\n")
    monkeypatch.setattr(hostchanges, "PROC_SYS", root)
    return root


def test_forwarding_comes_back_with_what_follows_it(sysctls: Path, tmp_path: Path) -> None:
    """Links whose forwarding was on by themselves get it back."""
    changes = HostChanges(tmp_path / "host-changes.json")
    assert changes.enable_forwarding(others_enabled=False)
    assert read_sysctl(FORWARD) == "1"
    (sysctls / "net/ipv4/conf/vpn0/forwarding").write_text("0\n")  # as the kernel does
    assert changes.enable_forwarding(others_enabled=False)
    changes.restore_forwarding(others_enabled=False)
    assert read_sysctl(FORWARD) == "0"
    assert read_sysctl("net/ipv4/conf/vpn0/forwarding") == "1"
    assert not (tmp_path / "host-changes.json").exists()


@pytest.mark.usefixtures("sysctls")
def test_a_host_that_forwards_is_left_alone(tmp_path: Path) -> None:
    """What was on before us stays on after us."""
    hostchanges.write_sysctl(FORWARD, "1")
    changes = HostChanges(tmp_path / "host-changes.json")
    assert not changes.enable_forwarding(others_enabled=False)
    changes.restore_forwarding(others_enabled=False)
    assert read_sysctl(FORWARD) == "1"


@pytest.mark.usefixtures("sysctls")
def test_the_last_orchestrator_turns_forwarding_off(tmp_path: Path) -> None:
    """The first to go leaves it on for the second, which learned what was before."""
    first, second = (HostChanges(tmp_path / name) for name in ("1.json", "2.json"))
    first.enable_forwarding(others_enabled=False)
    assert second.enable_forwarding(others_enabled=True)
    first.restore_forwarding(others_enabled=True)
    assert read_sysctl(FORWARD) == "1"
    second.restore_forwarding(others_enabled=False)
    assert read_sysctl(FORWARD) == "0"


@pytest.mark.usefixtures("sysctls")
def test_reserved_ports_are_added_and_taken_back(tmp_path: Path) -> None:
    """Ports of others stay, those of a second orchestrator too."""
    first, second = (HostChanges(tmp_path / name) for name in ("1.json", "2.json"))
    first.reserve_port(8080)
    second.reserve_port(8081)
    first.reserve_port(8080)
    first.reserve_port(3001)
    assert read_sysctl(RESERVED) == "22,3000-3002,8080-8081"
    first.release_port(3001)
    first.release_all_ports()
    assert read_sysctl(RESERVED) == "22,3000-3002,8081"
    second.release_port(8081)
    assert read_sysctl(RESERVED) == "22,3000-3002"


@pytest.mark.usefixtures("sysctls")
def test_keys_of_others_stay_in_the_file(tmp_path: Path) -> None:
    """The file is shared with the other services."""
    path = tmp_path / "host-changes.json"
    path.write_text(json.dumps({"theirs": 1}))
    changes = HostChanges(path)
    changes.reserve_port(8080)
    assert changes.reserved_ports() == [8080]
    changes.release_port(8080)
    assert json.loads(path.read_text()) == {"theirs": 1}


@given(st.sets(st.integers(min_value=1, max_value=65535), max_size=50))
def test_port_lists_round_trip(ports: set[int]) -> None:
    """What is written is read back."""
    assert parse_ports(format_ports(ports)) == ports


def test_ports_are_written_as_ranges() -> None:
    """The kernel's own form: ascending, neighbours joined."""
    assert format_ports({9, 3, 1, 2, 10}) == "1-3,9-10"
    assert format_ports(set()) == ""
