# SPDX-License-Identifier: Apache-2.0
"""What a checkpoint and a restore need of the host, each thing looked at and named."""

from __future__ import annotations

import json
import os
import re
import threading
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from google.protobuf import json_format

from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.cgroups import MOUNTS, cgroup_v1_mount, cgroup_v2_mount
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import write_atomically
from aetherless_snapshotter import criu, files

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

LEAST_KERNEL = (6, 6)
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MISSING = "KERNEL_FEATURE_MISSING"
#: Capability numbers of linux/capability.h that making sandboxes and dumping them takes.
CAPABILITIES = {
    "CAP_CHOWN": 0,
    "CAP_DAC_OVERRIDE": 1,
    "CAP_KILL": 5,
    "CAP_SETGID": 6,
    "CAP_SETUID": 7,
    "CAP_NET_ADMIN": 12,
    "CAP_NET_RAW": 13,
    "CAP_SYS_PTRACE": 19,
    "CAP_SYS_ADMIN": 21,
    "CAP_MKNOD": 27,
}
#: What trees need of control groups, and how a kernel comes to have it.
CONTROLLERS = {
    "memory": "boot with cgroup_enable=memory",
    "pids": "boot a kernel with CONFIG_CGROUP_PIDS",
    "cpu": "boot a kernel with CONFIG_FAIR_GROUP_SCHED",
}


@dataclass(frozen=True)
class Finding:
    """What one check found; ``remedy`` and ``reason`` are empty when it is well."""

    message: str
    remedy: str = ""
    reason: str = ""


class HostChecks:
    """All checks. The trial, a real dump and restore, is remembered per boot, kernel and CRIU."""

    def __init__(
        self, prefix: Path, cache: Path, trial: Callable[[], tuple[bool, str, str, str]]
    ) -> None:
        self._prefix = prefix
        self._cache = cache
        self._trial = trial
        self._lock = threading.Lock()

    def run(self, *, force: bool = False) -> list[pb.HostCheck]:
        """Do all checks; the trial only when the others passed, and again when ``force``."""
        with self._lock:
            checks = [_host_check(name, check()) for name, check in self._cheap()]
            if all(check.ok for check in checks):
                checks.append(self._tried(force=force))
            return checks

    def _cheap(self) -> Sequence[tuple[str, Callable[[], Finding]]]:
        """Return the checks that take no time."""
        return (
            ("root", check_root),
            ("kernel", lambda: check_kernel(os.uname().release)),
            ("capabilities", check_capabilities),
            ("user-namespaces", check_user_namespaces),
            ("cgroup", check_cgroup),
            ("overlay", check_overlay),
            ("python", check_python),
            ("criu", lambda: check_criu(self._prefix / "criu")),
            ("init", lambda: check_init(self._prefix / "aether-init")),
        )

    def _tried(self, *, force: bool) -> pb.HostCheck:
        """Return the trial's outcome, remembered or fresh; only a good one is remembered."""
        key = self._key()
        if not force and (known := self._remembered(key)):
            return known
        ok, message, remedy, reason = self._trial()
        check = pb.HostCheck(
            name="checkpoint-restore", ok=ok, message=message, remedy=remedy, reason=reason
        )
        if ok:
            stored = {"key": key, "check": json_format.MessageToDict(check)}
            write_atomically(self._cache, json.dumps(stored))
        return check

    def _key(self) -> str:
        """Return what the trial's outcome depends on."""
        binaries = (files.sha256(self._prefix / name)[:16] for name in ("criu", "aether-init"))
        return " ".join([_BOOT_ID.read_text().strip(), os.uname().release, *binaries])

    def _remembered(self, key: str) -> pb.HostCheck | None:
        """Return the outcome of an earlier trial under the same conditions."""
        try:
            stored = json.loads(self._cache.read_text())
        except (FileNotFoundError, ValueError):
            return None
        if stored.get("key") != key:
            return None
        return json_format.ParseDict(stored["check"], pb.HostCheck())


def _host_check(name: str, finding: Finding) -> pb.HostCheck:
    """Return a finding as the contract has it."""
    return pb.HostCheck(
        name=name,
        ok=not finding.reason,
        message=finding.message,
        remedy=finding.remedy,
        reason=finding.reason,
    )


def check_root() -> Finding:
    """The service needs root: it makes user namespaces with ids of the host's."""
    if os.geteuid() == 0:
        return Finding("runs as root")
    return Finding(f"runs as uid {os.geteuid()}", "run as root", _MISSING)


def check_kernel(release: str) -> Finding:
    """The kernel must know tmpfs ``user.*`` attributes, id-mapped tmpfs and cgroup.kill."""
    match = re.match(r"(\d+)\.(\d+)", release)
    if match and (int(match[1]), int(match[2])) >= LEAST_KERNEL:
        return Finding(f"Linux {release}")
    least = ".".join(map(str, LEAST_KERNEL))
    return Finding(f"Linux {release} is older than {least}", f"install Linux {least}", _MISSING)


def check_capabilities(status: Path = Path("/proc/self/status")) -> Finding:
    """A root of a container may lack what a sandbox takes."""
    lines = dict(line.split(":\t", 1) for line in status.read_text().splitlines() if ":\t" in line)
    effective = int(lines["CapEff"], 16)
    missing = [name for name, number in CAPABILITIES.items() if not effective >> number & 1]
    if not missing:
        return Finding("all that are needed")
    names = ", ".join(missing)
    return Finding(f"missing {names}", f"grant {names} to the service", _MISSING)


def check_user_namespaces(
    limit: Path = Path("/proc/sys/user/max_user_namespaces"),
) -> Finding:
    """Every sandbox is a user namespace."""
    if limit.exists() and int(limit.read_text()) > 0:
        return Finding(f"up to {limit.read_text().strip()}")
    remedy = "sysctl -w user.max_user_namespaces=15000, in a kernel with CONFIG_USER_NS"
    return Finding("user namespaces are turned off", remedy, _MISSING)


def check_cgroup(mounts: Path = MOUNTS) -> Finding:
    """Trees are ended by cgroup.kill (v2), limited by memory and pids, and weighed by cpu."""
    try:
        mount = cgroup_v2_mount(mounts)
    except AetherlessError as error:
        return Finding(error.message, error.remedy, error.reason)
    controllers = (mount / "cgroup.controllers").read_text().split()
    missing = [
        name
        for name in CONTROLLERS
        if name not in controllers and cgroup_v1_mount(name, mounts) is None
    ]
    if not missing:
        return Finding(f"v2 at {mount}" + ("" if "memory" in controllers else ", limits by v1"))
    names = " and ".join(missing)
    remedy = "; ".join(CONTROLLERS[name] for name in missing)
    return Finding(f"no {names} controller", remedy, _MISSING)


def check_overlay(filesystems: Path = Path("/proc/filesystems")) -> Finding:
    """A sandbox's writable folders are overlays (mounted inside a user namespace by the trial)."""
    if "overlay" in filesystems.read_text().split():
        return Finding("overlay is there")
    return Finding("the kernel has no overlay file system", "modprobe overlay", _MISSING)


def check_python() -> Finding:
    """``.py`` handlers run with Debian's interpreter unless they name another."""
    path = Path("/usr/bin/python3")
    if path.exists():
        return Finding(str(path.resolve()))
    return Finding(f"there is no {path}", "apt-get install python3", _MISSING)


def check_criu(binary: Path) -> Finding:
    """CRIU must be there and new enough."""
    try:
        return Finding(f"{criu.check_version(binary)} at {binary}")
    except AetherlessError as error:
        return Finding(error.message, error.remedy, error.reason)


def check_init(binary: Path) -> Finding:
    """The sandbox's init is built by set-up."""
    if os.access(binary, os.X_OK):
        return Finding(str(binary))
    return Finding(f"there is no {binary}", "run make setup", _MISSING)
