# SPDX-License-Identifier: Apache-2.0
"""The host comparison sees what it is for: each test plants one thing and must find it."""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from framework.hoststate import TOLERANCES, Change, HostState, counts, main
from framework.mesh import UNIFIED

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

MARK = "ae0dd0e0"


def run(*command: str) -> None:
    """Run a host tool."""
    subprocess.run(command, check=True, capture_output=True, timeout=20)


@contextlib.contextmanager
def link() -> Iterator[None]:
    """Plant a link with an address, a route, a neighbour and a qdisc."""
    run("ip", "link", "add", f"{MARK}1", "type", "veth", "peer", "name", f"{MARK}2")
    try:
        run("ip", "address", "add", "198.18.251.1/32", "dev", f"{MARK}1")
        run("ip", "link", "set", f"{MARK}1", "up")
        run("ip", "route", "add", "198.18.251.2/32", "dev", f"{MARK}1")
        run(
            "ip",
            "neighbour",
            "add",
            "198.18.251.2",
            "lladdr",
            "02:ae:00:00:00:77",
            "dev",
            f"{MARK}1",
        )
        run("tc", "qdisc", "add", "dev", f"{MARK}1", "clsact")
        yield
    finally:
        run("ip", "link", "delete", f"{MARK}1")


@contextlib.contextmanager
def table() -> Iterator[None]:
    """Plant an nftables table."""
    run("nft", "add", "table", "inet", MARK)
    try:
        yield
    finally:
        run("nft", "delete", "table", "inet", MARK)


@contextlib.contextmanager
def group() -> Iterator[None]:
    """Plant a control group."""
    top = next(top for top in UNIFIED if (top / "cgroup.procs").exists())
    (top / f"aether-{MARK}").mkdir()
    try:
        yield
    finally:
        (top / f"aether-{MARK}").rmdir()


@contextlib.contextmanager
def mount(folder: Path) -> Iterator[None]:
    """Plant a mount."""
    run("mount", "-t", "tmpfs", MARK, str(folder))
    try:
        yield
    finally:
        run("umount", str(folder))


@contextlib.contextmanager
def pin(folder: Path) -> Iterator[None]:
    """Plant a BPF map, pinned in a bpffs."""
    run("mount", "-t", "bpf", MARK, str(folder))
    try:
        kind = ("type", "array", "key", "4", "value", "4", "entries", "1", "name", MARK)
        run("bpftool", "map", "create", str(folder / "map"), *kind)
        yield
    finally:
        run("umount", str(folder))


@contextlib.contextmanager
def memory_file() -> Iterator[None]:
    """Plant a file in /dev/shm."""
    path = Path("/dev/shm", MARK)
    path.touch()
    try:
        yield
    finally:
        path.unlink()


@contextlib.contextmanager
def listener(folder: Path) -> Iterator[None]:
    """Plant a listening Unix socket."""
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(str(folder / MARK))
        server.listen()
        yield


@contextlib.contextmanager
def process() -> Iterator[None]:
    """Plant a process that an orchestrator could have left."""
    environment = {**os.environ, "AETHER_RUNTIME_DIR": f"/run/{MARK}"}
    command = [sys.executable, "-c", "input()"]
    with subprocess.Popen(command, env=environment, stdin=subprocess.PIPE) as child:
        yield
        child.communicate(timeout=20)


@contextlib.contextmanager
def setting() -> Iterator[None]:
    """Change a setting of the kernel that nobody uses, and put it back."""
    path = Path("/proc/sys/net/ipv4/icmp_ratemask")
    before = path.read_text()
    path.write_text(str(int(before) ^ 1))
    try:
        yield
    finally:
        path.write_text(before)


@pytest.fixture(autouse=True)
def _host_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the comparisons of these tests their own mark, whoever else tests on this host."""
    monkeypatch.setenv("AETHER_TEST_SHARED_HOST", "1")


@pytest.mark.parametrize(
    ("plant", "sections"),
    [
        (lambda _: link(), {"links", "addresses", "routes", "neighbours", "qdiscs"}),
        (lambda _: table(), {"nft"}),
        (lambda _: group(), {"cgroups"}),
        (mount, {"mounts"}),
        (pin, {"mounts", "bpf-maps"}),
        (lambda _: memory_file(), {"shared-memory"}),
        (listener, {"sockets"}),
        (lambda _: process(), {"processes"}),
        (lambda _: setting(), {"sysctls"}),
    ],
    ids=["link", "nft", "cgroup", "mount", "bpf", "shm", "socket", "process", "sysctl"],
)
def test_what_was_planted_is_found(
    plant: Callable[[Path], contextlib.AbstractContextManager[None]],
    sections: set[str],
    tmp_path: Path,
) -> None:
    """A planted thing is found in its sections, and is no difference once it is gone."""
    state = HostState([MARK, "icmp_ratemask"], shared=True)
    with plant(tmp_path):
        found = {change.section for change in state.differences()}
        assert sections <= found
    state.verify()


def test_on_a_host_of_our_own_every_change_counts() -> None:
    """Without a mark a change counts on a host of our own, and not on a shared one."""
    change = Change("cgroups", "/sys/fs/cgroup/unified/stranger", appeared=True)
    assert counts(change, [], shared=False)
    assert not counts(change, [], shared=True)
    assert counts(change, ["stranger"], shared=True)


def test_every_tolerance_says_why() -> None:
    """Each tolerance names the section it is for and who makes the change."""
    assert all(tolerance.reason and tolerance.section for tolerance in TOLERANCES)


def test_the_tool_compares_by_file(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The command line notes the host in a file and finds what was planted since."""
    noted = str(tmp_path / "host.json")
    assert main(["snapshot", noted]) == 0
    assert main(["compare", noted, "--shared", "--mark", MARK]) == 0
    with table():
        arguments = ["compare", noted, "--shared", "--mark", MARK, "--settle", "0"]
        assert main(arguments) == 1
    assert f'+ {{"table": {{"family": "inet", "name": "{MARK}"}}}}' in capsys.readouterr().out
