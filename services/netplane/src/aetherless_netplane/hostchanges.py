# SPDX-License-Identifier: Apache-2.0
"""Sysctls that the netplane changes, what they were before, and how they are put back.

``host-changes.json`` holds ``{"sysctls": {name: value before}, "reserved_ports": [...]}``; other
services may keep keys of their own in it. Changes by several orchestrators are put in a row by an
flock on the sysctl's own file, the only thing that they share.
"""

from __future__ import annotations

import fcntl
import json
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetherless_common.settings import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterator

PROC_SYS = Path("/proc/sys")
FORWARD = "net/ipv4/ip_forward"
RESERVED = "net/ipv4/ip_local_reserved_ports"
FOLLOWERS = "net/ipv4/conf/{}/forwarding"
REDIRECTS = "net/ipv4/conf/all/accept_redirects"


class HostChanges:
    """The orchestrator's record of changed sysctls.

    Args:
        path: the file, ``host-changes.json``.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    # IPv4 forwarding

    def enable_forwarding(self, *, others_enabled: bool) -> bool:
        """Let the host forward IPv4; tell whether we, or another orchestrator, turned it on.

        The caller holds ``locked(FORWARD)`` until its table says so to the others.

        Args:
            others_enabled: another orchestrator of this host turned it on.
        """
        noted = self._noted("sysctls", {})
        if read_sysctl(FORWARD) == "0":
            before = {FORWARD: "0", REDIRECTS: read_sysctl(REDIRECTS), **_followers()}
            self._note("sysctls", {**before, **noted})
            write_sysctl(FORWARD, "1")
            return True
        if others_enabled and FORWARD not in noted:
            self._note("sysctls", {FORWARD: "0", **noted})
        return others_enabled or FORWARD in noted

    def restore_forwarding(self, *, others_enabled: bool) -> None:
        """Put IPv4 forwarding back, unless another orchestrator still needs it.

        The caller holds ``locked(FORWARD)`` from before its table was removed.
        """
        before = self._noted("sysctls", {})
        if FORWARD not in before:
            return
        if not others_enabled and read_sysctl(FORWARD) != before[FORWARD]:
            write_sysctl(FORWARD, before[FORWARD])
            for name, value in before.items():
                if _follows(name) and (PROC_SYS / name).exists():
                    write_sysctl(name, value)
        kept = {n: v for n, v in before.items() if n != FORWARD and not _follows(n)}
        self._note("sysctls", kept)

    # Reserved ports

    def reserve_port(self, port: int) -> None:
        """Keep the kernel from giving the port to somebody who asked for any."""
        with locked(RESERVED):
            ports = parse_ports(read_sysctl(RESERVED))
            if port in ports:
                return
            self._note("reserved_ports", [*self._noted("reserved_ports", []), port])
            write_sysctl(RESERVED, format_ports(ports | {port}))

    def release_port(self, port: int) -> None:
        """Undo ``reserve_port``, if we did it."""
        self._release({port})

    def release_all_ports(self) -> None:
        """Undo every ``reserve_port``."""
        self._release(set(self.reserved_ports()))

    def reserved_ports(self) -> list[int]:
        """Return the ports that we reserved."""
        return list(self._noted("reserved_ports", []))

    def _release(self, ports: set[int]) -> None:
        noted = self._noted("reserved_ports", [])
        ours = ports & set(noted)
        if not ours:
            return
        with locked(RESERVED):
            write_sysctl(RESERVED, format_ports(parse_ports(read_sysctl(RESERVED)) - ours))
        self._note("reserved_ports", [port for port in noted if port not in ours])

    # The file

    def _read(self) -> dict[str, Any]:
        try:
            stored = json.loads(self._path.read_text())
        except FileNotFoundError:
            return {}
        return dict(stored)

    def _noted(self, key: str, default: Any) -> Any:
        return self._read().get(key, default)

    def _note(self, key: str, value: Any) -> None:
        """Store a key before the change that it undoes; an empty value leaves no key behind."""
        stored = self._read()
        stored[key] = value
        stored = {name: content for name, content in stored.items() if content}
        if stored:
            write_atomically(self._path, json.dumps(stored, indent=2) + "\n")
        else:
            self._path.unlink(missing_ok=True)


def _follows(name: str) -> bool:
    """Tell whether the kernel writes this sysctl, too, when ip_forward changes."""
    return name == REDIRECTS or name.endswith("/forwarding")


def _followers() -> dict[str, str]:
    """Return the links whose forwarding was on though the host's was off."""
    on = {}
    for folder in (PROC_SYS / "net/ipv4/conf").iterdir():
        name = FOLLOWERS.format(folder.name)
        if folder.name != "all" and read_sysctl(name) == "1":
            on[name] = "1"
    return on


def read_sysctl(name: str) -> str:
    """Return a sysctl's value; the name is its path below /proc/sys."""
    return (PROC_SYS / name).read_text().strip()


def write_sysctl(name: str, value: str) -> None:
    """Set a sysctl."""
    (PROC_SYS / name).write_text(value + "\n")


@contextmanager
def locked(name: str) -> Iterator[None]:
    """Change a sysctl while no other orchestrator does."""
    with (PROC_SYS / name).open() as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def parse_ports(text: str) -> set[int]:
    """Return the ports of a list like ``22,8000-8002``."""
    ports: set[int] = set()
    for part in filter(None, text.split(",")):
        first, _, last = part.partition("-")
        ports |= set(range(int(first), int(last or first) + 1))
    return ports


def format_ports(ports: set[int]) -> str:
    """Return ports as the kernel's list: ranges, ascending."""
    ranges: list[list[int]] = []
    for port in sorted(ports):
        if ranges and ranges[-1][1] == port - 1:
            ranges[-1][1] = port
        else:
            ranges.append([port, port])
    return ",".join(f"{a}" if a == b else f"{a}-{b}" for a, b in ranges)
