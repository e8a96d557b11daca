# SPDX-License-Identifier: Apache-2.0
"""What the command line itself can see of a host: all that is missing, at once."""

from __future__ import annotations

import os
import re
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetherless_cli import errors
from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_common.errors import AetherlessError
from aetherless_common.settings import SERVICES, Settings

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from aetherless_cli.console import Console

OLDEST_KERNEL = (6, 6)
BTF = Path("/sys/kernel/btf/vmlinux")
# What `make setup` puts into the prefix.
BUILT = {"criu": "criu", "init": "aether-init", "bpf-objects": "bpf"}
# One of these says that a folder is an orchestrator's.
RUNTIME_NAMES = {"settings.json", "instances", "bpf", *(f"{name}.lock" for name in SERVICES)}
STATE_NAMES = {
    "orchestrator.lock",
    "host-check.json",
    "registry.db",
    "events.db",
    "log",
    "roots",
    "functions-log",
}


@dataclass(frozen=True)
class Check:
    """One thing that was looked at; ``source`` is who looked: host, snapshotter or netplane."""

    source: str
    name: str
    ok: bool
    message: str
    remedy: str = ""
    reason: str = ""

    def data(self) -> dict[str, Any]:
        """Return the check with the contract's field names."""
        return asdict(self)


def check_host(settings: Settings) -> list[Check]:
    """Look at everything that needs no service."""
    return [_root(), _kernel(), _btf(), _cgroup(), *_prefix(settings), *_folders(settings)]


def from_service(source: str, checks: Iterable[Any]) -> list[Check]:
    """Return what a service's CheckHost found."""
    return [
        Check(source, each.name, each.ok, each.message, each.remedy, each.reason) for each in checks
    ]


def require(checks: Iterable[Check], console: Console) -> None:
    """Print one line for each thing that is missing.

    Raises:
        FailedPrecondition: HOST_NOT_READY when anything is.
    """
    lacking = [check for check in checks if not check.ok]
    for check in lacking:
        console.line(line_of(check, console), check=check.data())
    if lacking:
        raise errors.host_not_ready([check.name for check in lacking])


def line_of(check: Check, console: Console) -> str:
    """Return the one line that says how a check went."""
    if check.ok:
        return f"{console.paint('ok     ', '32')}  {check.source} {check.name}: {check.message}"
    reason = f" [{check.reason}]" if check.reason else ""
    mark = console.paint("missing", "31;1")
    text = f"{mark}  {check.source} {check.name}: {check.message}{reason}"
    return f"{text}; remedy: {check.remedy}" if check.remedy else text


def missing(name: str, message: str, remedy: str, reason: str) -> Check:
    """Return the check of the command line's own that failed."""
    return Check("host", name, ok=False, message=message, remedy=remedy, reason=reason)


def _present(name: str, message: str) -> Check:
    return Check("host", name, ok=True, message=message)


def _root() -> Check:
    if os.geteuid() == 0:
        return _present("root", "running as root")
    message = f"running as user {os.geteuid()}"
    return missing("root", message, "run it with sudo", "NOT_ROOT")


def _kernel() -> Check:
    release = os.uname().release
    numbers = re.match(r"(\d+)\.(\d+)", release)
    version = (int(numbers[1]), int(numbers[2])) if numbers else (0, 0)
    if version >= OLDEST_KERNEL:
        return _present("kernel", release)
    remedy = "install kernel 6.6 or newer, on Debian 12 the one of backports"
    return missing("kernel", f"{release} is older than 6.6", remedy, "KERNEL_FEATURE_MISSING")


def _btf() -> Check:
    if BTF.exists():
        return _present("btf", str(BTF))
    remedy = "boot a kernel built with CONFIG_DEBUG_INFO_BTF=y"
    return missing("btf", f"no {BTF}", remedy, "KERNEL_FEATURE_MISSING")


def _cgroup() -> Check:
    try:
        return _present("cgroup", str(cgroup_v2_mount()))
    except AetherlessError as error:
        return missing("cgroup", error.message, error.remedy, error.reason)


def _prefix(settings: Settings) -> Iterator[Check]:
    for name, relative in BUILT.items():
        path = settings.prefix / relative
        present = any(path.glob("*.bpf.o")) if relative == "bpf" else os.access(path, os.X_OK)
        if present:
            yield _present(name, str(path))
            continue
        reason = "CRIU_NOT_FOUND" if name == "criu" else "NOT_SET_UP"
        remedy = "run 'make setup' as root, or set AETHER_PREFIX"
        yield missing(name, f"not in {settings.prefix}", remedy, reason)


def _folders(settings: Settings) -> Iterator[Check]:
    """Refuse a folder that is somebody else's: ``up`` would close it to all but root."""
    for name, folder, ours in (
        ("runtime folder", settings.runtime_dir, RUNTIME_NAMES),
        ("state folder", settings.state_dir, STATE_NAMES),
    ):
        try:
            found = {entry.name for entry in folder.iterdir()}
        except FileNotFoundError:
            found = set()
        except OSError as error:
            remedy = "choose another one with AETHER_RUNTIME_DIR or AETHER_STATE_DIR"
            yield missing(name, f"{folder}: {error.strerror}", remedy, "FOLDER_IN_USE")
            continue
        if not found or found & ours:
            yield _present(name, str(folder))
            continue
        remedy = "choose a folder of its own with AETHER_RUNTIME_DIR or AETHER_STATE_DIR"
        message = f"{folder} holds other files, for example {min(found)}"
        yield missing(name, message, remedy, "FOLDER_IN_USE")
