# SPDX-License-Identifier: Apache-2.0
"""What the network needs of a host, each thing tried, with what to do when it is missing."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_common.errors import AetherlessError
from aetherless_netplane import bpffs, errors, firewall, libbpf, links, resolver
from aetherless_netplane.netlink import IPRoute

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_common.settings import Settings

OLDEST_KERNEL = (6, 6)
BTF = Path("/sys/kernel/btf/vmlinux")
CAPABILITIES = {"CAP_NET_ADMIN": 12, "CAP_NET_RAW": 13, "CAP_SYS_ADMIN": 21, "CAP_BPF": 39}
DISABLE_IPV6 = Path("/proc/sys/net/ipv6/conf/lo/disable_ipv6")


class Check(NamedTuple):
    """One thing that was checked, as HostCheck of the contract."""

    name: str
    ok: bool
    message: str
    remedy: str = ""
    reason: str = ""


def check_host(settings: Settings) -> list[Check]:
    """Try each thing; every one is reported, whatever the others are like."""
    named: list[tuple[str, Callable[[Settings], str]]] = [
        ("kernel", _kernel),
        ("btf", _btf),
        ("capabilities", _capabilities),
        ("libbpf", _libbpf),
        ("bpf-objects", _objects),
        ("bpffs", _bpffs),
        ("cgroup2", _cgroup2),
        ("nft", _nft),
        ("ipv6", _ipv6),
        ("clsact", _clsact),
        ("forward", _forward),
        ("dns", _dns),
    ]
    return [_run(name, check, settings) for name, check in named]


def _run(name: str, check: Callable[[Settings], str], settings: Settings) -> Check:
    try:
        return Check(name, ok=True, message=check(settings))
    except AetherlessError as error:
        remedy = error.remedy or _see(name)
        return Check(name, ok=False, message=error.message, remedy=remedy, reason=error.reason)


def _see(name: str) -> str:
    return f"make the check {name!r} pass; the service's log has the details"


def _missing(feature: str, message: str, remedy: str) -> AetherlessError:
    return errors.kernel_feature_missing(feature, message, remedy)


def _kernel(_settings: Settings) -> str:
    release = os.uname().release
    major, minor = (int("".join(filter(str.isdigit, n)) or 0) for n in release.split(".")[:2])
    if (major, minor) < OLDEST_KERNEL:
        raise _missing("kernel", f"kernel {release} is older than 6.6", "install a newer kernel")
    return f"kernel {release}"


def _btf(_settings: Settings) -> str:
    if not os.access(BTF, os.R_OK):
        remedy = "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y"
        raise _missing("btf", f"the kernel has no BTF ({BTF})", remedy)
    return f"{BTF}, {BTF.stat().st_size >> 10} KiB"


def _capabilities(_settings: Settings) -> str:
    status = Path("/proc/self/status").read_text().splitlines()
    effective = next(int(line.split()[1], 16) for line in status if line.startswith("CapEff:"))
    lacking = [name for name, bit in CAPABILITIES.items() if not effective >> bit & 1]
    if lacking:
        message = f"the service lacks {', '.join(lacking)}"
        raise _missing("capabilities", message, "run the services as root, in no container")
    return ", ".join(CAPABILITIES)


def _libbpf(_settings: Settings) -> str:
    try:
        libbpf.library()
    except OSError as error:
        raise _missing("libbpf", str(error), "apt-get install libbpf1") from error
    return "libbpf.so.1"


def _objects(settings: Settings) -> str:
    folder = settings.prefix / "bpf"
    found = sorted(path.name for path in folder.glob("*.bpf.o"))
    if len(found) < 3:  # noqa: PLR2004  # translate, connect, bind
        raise _missing("bpf-objects", f"{folder} has no BPF objects", "run make setup")
    return ", ".join(found)


def _bpffs(settings: Settings) -> str:
    if not bpffs.is_mounted(settings.bpf_dir):
        message = f"no bpffs is mounted at {settings.bpf_dir}"
        raise _missing("bpffs", message, "run aetherctl down, then up")
    return str(settings.bpf_dir)


def _cgroup2(_settings: Settings) -> str:
    return str(cgroup_v2_mount())


def _nft(_settings: Settings) -> str:
    return f"nft lists {len(firewall.listed('tables')) - 1} tables"


def _ipv6(_settings: Settings) -> str:
    if not DISABLE_IPV6.exists():
        raise _missing("ipv6", "the kernel has no IPv6", "boot without ipv6.disable=1")
    if DISABLE_IPV6.read_text().strip() != "0":
        remedy = "sysctl -w net.ipv6.conf.lo.disable_ipv6=0 (other links may stay without)"
        raise _missing("ipv6", "IPv6 is disabled on lo", remedy)
    return "IPv6 on lo"


def _clsact(settings: Settings) -> str:
    """Make a veth pair with clsact on it, and remove it."""
    # Not "chk": a link of that name, of the snapshotter's trial, may still be on its way out.
    name = f"ae{settings.orchestrator_id}cls"
    with IPRoute() as ipr, links.typed("making a veth pair"):
        ipr.link("add", ifname=name, kind="veth", peer={"ifname": f"{name}p"})
        ifindex = links.ours(name)[name]
        try:
            libbpf.create_clsact(ifindex)
        except libbpf.BpfError as error:
            remedy = "use a kernel with CONFIG_NET_SCH_INGRESS and CONFIG_NET_CLS_BPF"
            raise _missing("clsact", str(error), remedy) from error
        finally:
            links.delete(ipr, ifindex)
    return "veth pairs and clsact"


def _forward(settings: Settings) -> str:
    blocking = firewall.blocking_chains(settings.nft_table)
    if blocking:
        links_of_ours = f"ae{settings.orchestrator_id}+"
        raise _missing(
            "forward",
            f"the chain {blocking[0]} drops what it does not know, functions' way out included",
            f"let {links_of_ours} pass there, with Docker: iptables -I DOCKER-USER -i "
            f"{links_of_ours} -j ACCEPT and iptables -I DOCKER-USER -o {links_of_ours} -j ACCEPT; "
            f"with ufw: ufw route allow in on {links_of_ours}",
        )
    return "no forward chain drops by default"


def _dns(_settings: Settings) -> str:
    try:
        server = resolver.upstream()
    except ValueError as error:
        remedy = f"set {resolver.VARIABLE} to an IPv4 address"
        raise _missing("dns", f"{resolver.VARIABLE}: {error}", remedy) from error
    if server is None:
        raise _missing(
            "dns",
            "the host's resolv.conf names no IPv4 resolver that sandboxes can reach",
            f"set {resolver.VARIABLE} to the IPv4 address of one, then restart the services",
        )
    way = "by " + resolver.VARIABLE if os.environ.get(resolver.VARIABLE) else "of the host"
    return f"resolver {server} {way}"
