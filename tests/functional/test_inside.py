# SPDX-License-Identifier: Apache-2.0
"""A hostile handler tries to get out: what belongs to the host, or to others, is out of reach."""

from __future__ import annotations

import json
import os
import socket
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING
from urllib.parse import urlencode

import pytest

from framework.clients import call
from framework.guard import orchestrator
from framework.hostfacts import run
from framework.mesh import REPOSITORY, Function, Orchestrator, free_port
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Iterator

ID, OTHER = "probe", "other"
DENIED = {"EACCES", "EPERM", "ENOENT", "EROFS", "ENOSPC", "ENODEV", "ENXIO"}
UNREACHED = {"ECONNREFUSED", "TimeoutError", "ETIMEDOUT", "EHOSTUNREACH", "ENETUNREACH"}
# By what a function declares: the user it runs as, and its capabilities as the kernel counts them.
RIGHTS = {"none": ("1000", set[int]()), "container": ("0", {0, 1, 3, 4, 5, 6, 7, 10})}
WAYS_OUT = (
    *(
        "core_pattern",
        "network_setting",
        "more_namespaces",
        "sysrq",
        "ptrace",
        "raw_socket",
        "packet_socket",
        "mount",
        "unmount",
    ),
    *("join_init", "init_root", "init_memory", "bpf", "perf", "mknod", "chroot", "become_root"),
    *("hostname", "unshare_user", "unshare_net", "unshare_mount", "unshare_pid", "unshare_all"),
)


@dataclass(frozen=True)
class Inside:
    """A probe that runs in a sandbox beside another function's, with a set of capabilities."""

    mesh: Orchestrator
    port: int
    capabilities: str

    def attempt(self, name: str, **query: str | int) -> tuple[str, str]:
        """Let the handler try something; return outcome and detail."""
        answer = call(self.port, f"/{name}?{urlencode(query)}")
        assert answer.ok, answer
        found = answer.json()
        return str(found["outcome"]), str(found["detail"])

    def told(self, name: str, **query: str | int) -> str:
        """Return what the handler found out by something that it may do."""
        outcome, detail = self.attempt(name, **query)
        assert outcome == "reached", (name, detail)
        return detail


@pytest.fixture(scope="module", params=RIGHTS)
def inside(request: pytest.FixtureRequest) -> Iterator[Inside]:
    """Restore the probe beside another function that runs too."""
    probe = Function(ID, handler("probe"), keys={"capabilities": request.param})
    other = Function(OTHER, handler("plain"))
    with orchestrator(probe, other) as mesh:
        assert call(other.port).ok
        assert call(probe.port).ok
        mesh.wait_state(ID, "RUNNING")
        yield Inside(mesh, probe.port, request.param)


@pytest.mark.parametrize("name", WAYS_OUT)
def test_a_way_out_is_denied(inside: Inside, name: str) -> None:
    """The kernel refuses it, whatever capabilities were declared."""
    outcome, detail = inside.attempt(name)
    if name == "become_root" and inside.capabilities == "container":
        assert outcome == "reached", detail  # of its own user namespace, where it is already
        return
    assert outcome == "denied", detail
    assert detail in DENIED


def test_it_has_the_rights_it_declared(inside: Inside) -> None:
    """It runs as an ordinary user without capabilities, or with a container's; it gains none."""
    uid, capabilities = RIGHTS[inside.capabilities]
    mask = sum(1 << number for number in capabilities)
    lines = inside.told("status").splitlines()
    rights = {key: value.split() for key, _, value in (line.partition(":") for line in lines)}
    assert set(rights["Uid"]) == set(rights["Gid"]) == {uid}
    assert rights["Groups"] == []
    assert rights["NoNewPrivs"] == ["1"]
    assert {int(rights[kind][0], 16) for kind in ("CapPrm", "CapEff", "CapBnd")} == {mask}
    assert {int(rights[kind][0], 16) for kind in ("CapInh", "CapAmb")} == {0}


def test_the_host_sees_an_unprivileged_user(inside: Inside) -> None:
    """On the host its processes belong to ids that no user of the host has."""
    root = inside.mesh.contracts.instance(ID).root_pid
    assert root > 1
    status = Path(f"/proc/{root}/status").read_text().splitlines()
    uids = next(line for line in status if line.startswith("Uid:")).split()[1:]
    assert all(int(uid) > 65535 for uid in uids)
    for kind in ("user", "net", "pid", "mnt", "ipc", "uts"):
        theirs, ours = (Path(f"/proc/{who}/ns/{kind}").readlink() for who in (root, "self"))
        assert theirs != ours, kind


def test_files_of_the_host_are_out_of_reach(inside: Inside) -> None:
    """Secrets, services, other functions and this checkout don't exist inside."""
    settings = inside.mesh.settings
    paths = [
        Path("/etc/shadow"),
        Path("/etc/ssh"),
        Path.home(),
        Path("/sys/kernel"),
        Path("/dev/kmsg"),
        Path("/dev/mem"),
        settings.runtime_dir,
        settings.state_dir,
        settings.registry_path,
        settings.snapshot_root,
        handler("plain"),
        REPOSITORY / ".git",
    ]
    assert all(path.exists() for path in paths if path.is_relative_to(settings.state_dir))
    for path in paths:
        outcome, detail = inside.attempt("read_path", path=str(path))
        assert outcome == "denied", f"{path}: {detail}"
        assert detail in DENIED


def test_it_sees_only_its_own_snapshot(inside: Inside) -> None:
    """No mount of the sandbox shows another function's files, nor a writable snapshot."""
    table = inside.told("mounts").splitlines()
    assert table
    assert [line for line in table if f"{OTHER}-r" in line or f"/{OTHER}/" in line] == []
    for line in table:
        fields = line.split()
        if "snap" in fields[4] or fields[3].startswith(f"/aetherless/{inside.mesh.id}"):
            assert "ro" in fields[5].split(","), line


@pytest.mark.parametrize(
    "folder", ["/", "/usr/bin", "/etc", "/proc/sys/kernel", "/dev", "/criu", "/lowers", "/snap"]
)
def test_system_folders_are_read_only(inside: Inside, folder: str) -> None:
    """It can't make files where programs and settings are."""
    outcome, detail = inside.attempt("write_path", path=folder)
    assert outcome == "denied", detail


def test_it_may_write_where_programs_write(inside: Inside) -> None:
    """Its own /tmp and folder are writable."""
    for folder in ("/tmp", str(handler("probe").parent)):
        assert inside.told("write_path", path=folder).startswith("wrote")
    assert list(handler("probe").parent.glob("probe-*")) == []


@pytest.mark.parametrize("service", ["registry", "snapshotter", "netplane", "ipc"])
def test_service_sockets_are_out_of_reach(inside: Inside, service: str) -> None:
    """It can't connect to a service."""
    path = inside.mesh.settings.socket_path(service)
    assert path.exists()
    assert inside.attempt("unix_connect", path=str(path)) == ("denied", "ENOENT")


def test_abstract_sockets_of_the_host_are_out_of_reach(inside: Inside) -> None:
    """A Unix socket with no path, listening on the host, is not there inside."""
    name = f"aether-test-{os.getpid()}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(f"\0{name}")
        server.listen()
        assert inside.attempt("unix_connect", path=f"@{name}") == ("denied", "ECONNREFUSED")


def test_other_processes_are_out_of_sight(inside: Inside) -> None:
    """It sees its own processes, and none of the host's, the init's or the other function's."""
    seen = inside.told("processes").split()
    assert seen
    assert set(seen) <= {"python3", "python3.11", "python3.12", "python3.13", "probe.py"}


def test_no_descriptor_of_ours_leaks(inside: Inside) -> None:
    """Its open files are its own: streams, its log, its listener and this connection."""
    links = inside.told("descriptors").splitlines()
    foreign = [
        link
        for link in links
        if not link.startswith(("/dev/null", "/log/out", "socket:", "/proc/"))
    ]
    assert foreign == []
    assert len([link for link in links if link.startswith("socket:")]) <= 3


def host_addresses() -> list[str]:
    """Return the IPv4 addresses of this host's own links, without those of orchestrators."""
    links = json.loads(run("ip", "-j", "-4", "address", "show"))
    own = (link for link in links if not link["ifname"].startswith(("ae", "lo")))
    return [info["local"] for link in own for info in link["addr_info"]]


def test_other_ports_of_the_host_are_out_of_reach(inside: Inside) -> None:
    """A port that listens on every address of the host can't be reached from inside."""
    port = free_port()
    with socket.create_server(("0.0.0.0", port)) as server:
        server.settimeout(0.2)
        with socket.create_connection(("127.0.0.1", port), 5):
            server.accept()[0].close()
        for host in ("127.0.0.1", inside.told("gateway"), *host_addresses()):
            outcome, detail = inside.attempt("tcp_connect", host=host, port=port)
            assert outcome == "denied", host
            assert detail in UNREACHED, (host, detail)
        with pytest.raises(TimeoutError):
            server.accept()


def test_functions_reach_each_other_by_trigger_port(inside: Inside) -> None:
    """Another function's trigger port is open from inside, on localhost."""
    port = next(f.port for f in inside.mesh.functions if f.id == OTHER)
    assert inside.told("tcp_connect", host="127.0.0.1", port=port) == "connected"
