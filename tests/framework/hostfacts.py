# SPDX-License-Identifier: Apache-2.0
"""Reads what a host has, section by section, as sorted lines that two moments can be compared by.

Numbers that differ between two readings of an unchanged host (counters, ages, interface indices)
are left out here; what other programs may do meanwhile is judged in ``hoststate``.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import subprocess
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

Lines = list[str]

TOOL_TIMEOUT = 30
# Keys of iproute2's and nft's JSON that change by themselves.
VOLATILE_KEYS = frozenset(
    {"ifindex", "link_index", "operstate", "valid_life_time", "preferred_life_time", "handle"}
    | {"expires", "used", "refcnt", "probes", "packets", "bytes", "promiscuity", "metainfo"}
    | {"inet6_addr_gen_mode", "flags_oper", "link_netnsid", "state"}
)
# Counters and clocks among the settings of /proc/sys.
VOLATILE_SYSCTLS = frozenset(
    {"fs/file-nr", "fs/inode-nr", "fs/inode-state", "fs/dentry-state", "fs/aio-nr"}
    | {"fs/quota/syncs", "kernel/ns_last_pid", "kernel/pty/nr", "kernel/random/uuid"}
    | {"kernel/random/entropy_avail", "net/netfilter/nf_conntrack_count"}
    | {"kernel/random/boot_id", "kernel/sched_domain"}
)
RESERVED_PORTS = "net/ipv4/ip_local_reserved_ports"
SYSCTL_ROOTS = ("net", "kernel", "fs", "user", "vm")
KERNEL_THREAD = 0x00200000  # PF_KTHREAD of include/linux/sched.h
HOST_NAMESPACES = ("net", "mnt", "pid", "user", "ipc", "uts")


def run(*command: str) -> str:
    """Return what a tool prints; CalledProcessError when it fails, with its words."""
    done = subprocess.run(command, capture_output=True, text=True, check=True, timeout=TOOL_TIMEOUT)
    return done.stdout


def without_volatile(value: Any) -> Any:
    """Return parsed JSON without the keys that change by themselves."""
    if isinstance(value, dict):
        kept = {k: without_volatile(v) for k, v in value.items() if k not in VOLATILE_KEYS}
        return {k: v for k, v in kept.items() if v not in ({}, [], None)}
    if isinstance(value, list):
        return [without_volatile(item) for item in value]
    return value


def json_lines(text: str) -> Lines:
    """Return one canonical line per element of a tool's JSON list."""
    parsed = json.loads(text or "[]")
    items = parsed.get("nftables", [parsed]) if isinstance(parsed, dict) else parsed
    lines = [json.dumps(without_volatile(item), sort_keys=True) for item in items]
    return sorted(line for line in lines if line != "{}")


def read(path: Path | str) -> str | None:
    """Return a file's text, or None when it is gone or may not be read."""
    try:
        return Path(path).read_text(errors="replace")
    except OSError:
        return None


def pids() -> Iterator[int]:
    """Yield the ids of all processes, without this one, its ancestors and kernel threads."""
    family = set(ancestors(os.getpid()))
    for name in (entry.name for entry in Path("/proc").iterdir()):
        if name.isdigit() and int(name) not in family and not is_kernel_thread(int(name)):
            yield int(name)


def stat_fields(pid: int) -> list[str]:
    """Return the fields of /proc/PID/stat behind the command name; empty when it is gone."""
    text = read(f"/proc/{pid}/stat")
    return text.rpartition(")")[2].split() if text else []


def is_kernel_thread(pid: int) -> bool:
    """Say whether a process is the kernel's own, or gone."""
    fields = stat_fields(pid)
    return not fields or bool(int(fields[6]) & KERNEL_THREAD)


def ancestors(pid: int) -> Iterator[int]:
    """Yield a process and those that started it."""
    while pid > 0:
        yield pid
        fields = stat_fields(pid)
        pid = int(fields[1]) if fields else 0


def namespaces(pid: int | str) -> frozenset[str]:
    """Return the names of a process's namespaces; empty when it is gone."""
    names = set()
    for kind in HOST_NAMESPACES:
        try:
            names.add(str(Path(f"/proc/{pid}/ns/{kind}").readlink()))
        except OSError:
            continue
    return frozenset(names)


def describe_process(pid: int, host: frozenset[str]) -> str | None:
    """Return a line for a process that bears a trace of an orchestrator, else None."""
    command = (read(f"/proc/{pid}/cmdline") or "").replace("\0", " ").strip()
    groups = " ".join(sorted(set((read(f"/proc/{pid}/cgroup") or "").split())))
    environ = (read(f"/proc/{pid}/environ") or "").split("\0")
    folder = next((e for e in environ if e.startswith("AETHER_RUNTIME_DIR=")), "")
    in_sandbox = bool(namespaces(pid) - host)
    if not (in_sandbox or "/aether-" in groups or folder or "aetherless_" in command):
        return None
    fields = stat_fields(pid)
    group = next((g for g in groups.split() if "/aether-" in g), "")
    started = fields[19] if fields else "gone"
    return f"pid {pid} started {started} [{command[:160]}] {group} {folder}"


def processes() -> Lines:
    """List the processes that could be an orchestrator's."""
    host = namespaces("self")
    lines = (describe_process(pid, host) for pid in pids())
    return sorted(line for line in lines if line)


def links() -> Lines:
    """List the interfaces of this network namespace with all their attributes."""
    return json_lines(run("ip", "-j", "-d", "link", "show"))


def addresses() -> Lines:
    """List the addresses of the interfaces, one a line."""
    lines = []
    for link in json.loads(run("ip", "-j", "address", "show") or "[]"):
        for info in link.get("addr_info", []):
            body = json.dumps(without_volatile(info), sort_keys=True)
            lines.append(f"{link['ifname']} {body}")
    return sorted(lines)


def routes() -> Lines:
    """List the routes of all tables, IPv4 and IPv6."""
    both = (run("ip", "-j", family, "route", "show", "table", "all") for family in ("-4", "-6"))
    return [line for text in both for line in json_lines(text)]


def rules() -> Lines:
    """List the routing rules, IPv4 and IPv6."""
    both = (run("ip", "-j", family, "rule", "show") for family in ("-4", "-6"))
    return [line for text in both for line in json_lines(text)]


def neighbours() -> Lines:
    """List the permanent neighbours; learnt ones come and go by themselves."""
    return json_lines(run("ip", "-j", "neighbour", "show", "nud", "permanent"))


def nft() -> Lines:
    """List the whole nftables ruleset."""
    return json_lines(run("nft", "-j", "list", "ruleset"))


def qdiscs() -> Lines:
    """List the queueing disciplines, and the filters of those that hold any."""
    shown = json.loads(run("tc", "-j", "qdisc", "show") or "[]")
    lines = [json.dumps(without_volatile(item), sort_keys=True) for item in shown]
    for device in sorted({item["dev"] for item in shown if item["kind"] in ("clsact", "ingress")}):
        for side in ("ingress", "egress"):
            done = subprocess.run(
                ["tc", "-j", "filter", "show", "dev", device, side],
                capture_output=True,
                text=True,
                check=False,  # the device may have gone meanwhile
                timeout=TOOL_TIMEOUT,
            )
            lines += [f"{device} {side} {line}" for line in json_lines(done.stdout or "[]")]
    return sorted(lines)


def bpf(kind: str, *keys: str) -> Lines:
    """List BPF objects of one kind by the keys that say what they are."""
    shown = json.loads(run("bpftool", "-j", kind, "show") or "[]")
    return sorted(" ".join(f"{key}={item.get(key)}" for key in keys) for item in shown)


def bpf_programs() -> Lines:
    """List the BPF programs that are loaded."""
    return bpf("prog", "id", "type", "name", "tag")


def bpf_maps() -> Lines:
    """List the BPF maps that exist."""
    return bpf("map", "id", "type", "name", "bytes_key", "bytes_value", "max_entries")


def bpf_links() -> Lines:
    """List the BPF links that exist."""
    return bpf("link", "id", "type", "prog_id", "attach_type")


def mount_table() -> list[list[str]]:
    """Return the fields of each line of this process's mount table."""
    return [line.split() for line in Path("/proc/self/mountinfo").read_text().splitlines()]


def mounts() -> Lines:
    """List the mounts of this mount namespace, without ids."""
    lines = []
    for fields in mount_table():
        rest = fields.index("-")
        lines.append(" ".join([fields[4], fields[3], fields[5], *fields[rest + 1 :]]))
    return sorted(lines)


def groups_of_our_starter() -> set[str]:
    """Return the parents of this process's own groups: who started it starts others beside it."""
    own = (line.rpartition(":")[2] for line in (read("/proc/self/cgroup") or "").splitlines())
    return {parent for parent in (os.path.dirname(group) for group in own) if parent != "/"}  # noqa: PTH120 - text


def cgroups() -> Lines:
    """List the control groups of every mounted hierarchy, v1 and v2.

    Left out are groups that have no mark of ours and lie beside those of this very process.
    """
    tops = [f[4] for f in mount_table() if f[f.index("-") + 1] in ("cgroup", "cgroup2")]
    beside = tuple(top + parent + "/" for top in tops for parent in groups_of_our_starter())
    folders = {folder for top in tops for folder, _, _ in os.walk(top)}
    return sorted(f for f in folders if not (f.startswith(beside) and "/aether-" not in f))


def sysctls() -> Lines:
    """List the kernel's settings with their values; write-only ones are left out.

    Reserved ports have a line each: every orchestrator adds its own to the one setting.
    """
    lines = []
    for root in SYSCTL_ROOTS:
        for folder, _, names in os.walk(f"/proc/sys/{root}"):
            for name in names:
                path = Path(folder, name)
                key = str(path.relative_to("/proc/sys"))
                value = None if key in VOLATILE_SYSCTLS else read(path)
                if value is not None and key == RESERVED_PORTS:
                    lines += [f"{key} has {part}" for part in value.strip().split(",")]
                elif value is not None:
                    lines.append(f"{key} = {' '.join(value.split())}")
    return sorted(lines)


def shared_memory() -> Lines:
    """List the files under /dev/shm."""
    return sorted(
        str(Path(folder, name))
        for folder, folders, names in os.walk("/dev/shm")
        for name in (*folders, *names)
    )


def sockets() -> Lines:
    """List the listening Unix, TCP and UDP sockets and packet sockets, with who holds them."""
    lines = []
    for flags in ("-xlpH", "-tlnpH", "-ulnpH", "-0pH"):
        for line in run("ss", flags).splitlines():
            fields = line.split()
            # Queue lengths are small numbers and move; an inode number is larger and stays.
            kept = [f for f in fields if not f.isdigit() or int(f) > 65535]
            if "/proc/self/fd/" in line:
                kept += orchestrators_of(line)
            lines.append(" ".join(kept))
    return sorted(lines)


def orchestrators_of(line: str) -> Lines:
    """Return whose the holders of a socket are, for addresses that hide it."""
    found = set()
    for pid in re.findall(r"pid=(\d+)", line):
        with contextlib.suppress(OSError):
            environment = Path(f"/proc/{pid}/environ").read_bytes().split(b"\0")
            found |= {os.fsdecode(e) for e in environment if e.startswith(b"AETHER_RUNTIME_DIR=")}
    return sorted(found)


def runtime_files() -> Lines:
    """List the entries of /run and /tmp, two levels deep, that name an orchestrator."""
    found = []
    for top in ("/run", "/tmp", "/var/lib"):
        for path in Path(top).glob("*aether*"):
            found.append(str(path))
            if path.is_dir():
                found += [str(child) for child in path.iterdir()]
    return sorted(found)


SECTIONS: dict[str, Callable[[], Lines]] = {
    "processes": processes,
    "links": links,
    "addresses": addresses,
    "routes": routes,
    "rules": rules,
    "neighbours": neighbours,
    "nft": nft,
    "qdiscs": qdiscs,
    "bpf-programs": bpf_programs,
    "bpf-maps": bpf_maps,
    "bpf-links": bpf_links,
    "cgroups": cgroups,
    "mounts": mounts,
    "sysctls": sysctls,
    "shared-memory": shared_memory,
    "sockets": sockets,
    "runtime-files": runtime_files,
}
