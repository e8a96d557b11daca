# SPDX-License-Identifier: Apache-2.0
"""Settings of one orchestrator, and every path and name that follows from them.

Imports only light modules of the standard library: the command line loads this first.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aetherless_common.errors import FailedPrecondition, InvalidArgument

if TYPE_CHECKING:
    from collections.abc import Mapping

SERVICES = ("registry", "snapshotter", "netplane", "ipc")
SYSTEM_PREFIX = Path("/usr/lib/aetherless")
LONGEST_SOCKET_PATH = 107
PRIVATE_DIR = 0o700
ENVIRONMENT = {
    "runtime_dir": ("AETHER_RUNTIME_DIR", "/run/aetherless"),
    "state_dir": ("AETHER_STATE_DIR", "/var/lib/aetherless"),
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """What one orchestrator is told. Sizes are in bytes; times in the unit that the name says."""

    runtime_dir: Path
    state_dir: Path
    prefix: Path
    orchestrator_id: str
    snapshot_dir: Path = Path("/dev/shm/aetherless")  # noqa: S108  # images belong in memory
    shm_buffer_size: int = 4194304
    warm_pool_size: int = 10
    restore_timeout_ms: int = 15

    @classmethod
    def load(cls, environment: Mapping[str, str] = os.environ) -> Self:
        """Read the environment, then ``settings.json`` of the runtime folder, when it is there.

        A folder that the environment names wins over the file's.

        Raises:
            InvalidArgument: CONFIG_INVALID, the file or a folder can't be used.
            FailedPrecondition: MACHINE_ID_MISSING.
        """
        runtime_dir = _folder(environment, "runtime_dir", {})
        stored = _read_stored(runtime_dir / "settings.json")
        unknown = stored.keys() - {field.name for field in dataclasses.fields(cls)}
        if unknown:
            raise _invalid(runtime_dir / "settings.json", f"has unknown keys {sorted(unknown)}")
        loaded = cls(
            runtime_dir=runtime_dir,
            state_dir=_folder(environment, "state_dir", stored),
            prefix=find_prefix(environment, str(stored.get("prefix") or "")),
            orchestrator_id=orchestrator_id(runtime_dir),
        )
        changes: dict[str, object] = {k: v for k, v in stored.items() if isinstance(v, int)}
        if "snapshot_dir" in stored:
            changes["snapshot_dir"] = Path(str(stored["snapshot_dir"]))
        return loaded.replace(**changes)

    def replace(self, **changes: object) -> Self:
        """Return a copy with some fields changed."""
        return dataclasses.replace(self, **changes)  # type: ignore[arg-type]

    def write(self) -> None:
        """Store these settings as ``settings.json``, in one step, for the services to load."""
        self.make_folders()
        fields = dataclasses.asdict(self)
        text = json.dumps(
            {k: v if isinstance(v, int) else str(v) for k, v in fields.items()}, indent=2
        )
        write_atomically(self.settings_path, text + "\n")

    def make_folders(self) -> None:
        """Make the runtime and the state folder, 0700."""
        for folder in (self.runtime_dir, self.state_dir):
            folder.mkdir(mode=PRIVATE_DIR, parents=True, exist_ok=True)
            folder.chmod(PRIVATE_DIR)

    # Services

    @property
    def settings_path(self) -> Path:
        """Where these settings are stored."""
        return self.runtime_dir / "settings.json"

    def socket_path(self, service: str) -> Path:
        """The Unix socket of a service."""
        return self.runtime_dir / f"{service}.sock"

    def lock_path(self, service: str) -> Path:
        """The file whose lock says that a service lives."""
        return self.runtime_dir / f"{service}.lock"

    def pid_path(self, service: str) -> Path:
        """The file with a service's (or the ``supervisor``'s) pid and start time."""
        return self.runtime_dir / f"{service}.pid"

    def log_path(self, service: str) -> Path:
        """The log of a service."""
        return self.state_dir / "log" / f"{service}.log"

    # Instances, snapshots, functions

    def instance_dir(self, instance: str) -> Path:
        """The folder of an instance: control socket, description, last words."""
        return self.runtime_dir / "instances" / instance

    @property
    def snapshot_root(self) -> Path:
        """The folder of this orchestrator's snapshots."""
        return self.snapshot_dir / self.orchestrator_id

    def snapshot_path(self, snapshot: str) -> Path:
        """The folder of a finished snapshot."""
        return self.snapshot_root / snapshot

    def unfinished_snapshot_path(self, snapshot: str) -> Path:
        """The folder of a snapshot that is being made."""
        return self.snapshot_root / f".tmp-{snapshot}"

    def root_path(self, function: str, revision: int) -> Path:
        """The copy of a function's folder that one revision owns."""
        return self.state_dir / "roots" / function / str(revision)

    def function_log_path(self, function: str) -> Path:
        """What a function printed."""
        return self.state_dir / "functions-log" / f"{function}.log"

    @property
    def registry_path(self) -> Path:
        """The registry's store."""
        return self.state_dir / "registry.db"

    @property
    def events_path(self) -> Path:
        """The registry's events."""
        return self.state_dir / "events.db"

    @property
    def host_changes_path(self) -> Path:
        """The previous values of what was changed on the host."""
        return self.state_dir / "host-changes.json"

    # Names that the host sees

    @property
    def bpf_dir(self) -> Path:
        """Where the orchestrator's bpffs is mounted."""
        return self.runtime_dir / "bpf"

    @property
    def cgroup_name(self) -> str:
        """The control group of everything that this orchestrator runs, in each hierarchy."""
        return f"aether-{self.orchestrator_id}"

    @property
    def nft_table(self) -> str:
        """The nftables table, family inet."""
        return f"aether_{self.orchestrator_id}"

    def link_name(self, slot: int) -> str:
        """The host's link of an endpoint slot; at most 15 bytes."""
        return f"ae{self.orchestrator_id}{slot:x}"


def orchestrator_id(runtime_dir: Path, machine_id: Path = Path("/etc/machine-id")) -> str:
    """Return the 6 hex digits in every name that the host sees.

    Raises:
        FailedPrecondition: MACHINE_ID_MISSING.
    """
    try:
        machine = machine_id.read_text().strip()
    except OSError:
        machine = ""
    if not machine:
        raise FailedPrecondition(
            "MACHINE_ID_MISSING",
            f"{machine_id} is missing or empty",
            {"path": machine_id},
            remedy="run systemd-machine-id-setup",
        )
    text = f"{machine}:{os.path.realpath(runtime_dir)}"
    return hashlib.sha256(text.encode()).hexdigest()[:6]


def find_prefix(environment: Mapping[str, str] = os.environ, stored: str = "") -> Path:
    """Return the folder with CRIU, the init and the BPF objects.

    AETHER_PREFIX, else the stored one, else ``.prefix/lib/aetherless`` beside the checkout that
    this file is in, else ``/usr/lib/aetherless``. Whether it is complete is for ``doctor`` to say.
    """
    named = environment.get("AETHER_PREFIX") or stored
    if named:
        return Path(named).absolute()
    beside = (parent / ".prefix/lib/aetherless" for parent in Path(__file__).resolve().parents)
    return next((path for path in beside if path.is_dir()), SYSTEM_PREFIX)


def write_atomically(path: Path, text: str, mode: int = 0o600, *, sync: bool = True) -> None:
    """Write a small file so that a reader meets the old text or the new one.

    With ``sync`` that holds after a crash of the host too.
    """
    scratch = path.with_name(f".{path.name}.new")
    descriptor = os.open(scratch, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, mode)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        if sync:
            file.flush()
            os.fsync(file.fileno())
    scratch.rename(path)


def _folder(environment: Mapping[str, str], key: str, stored: Mapping[str, object]) -> Path:
    """Return a folder from the environment, the stored settings, or the default; absolute."""
    variable, default = ENVIRONMENT[key]
    path = Path(environment.get(variable) or str(stored.get(key) or default)).absolute()
    if len(os.fsencode(path / "snapshotter.sock")) > LONGEST_SOCKET_PATH and key == "runtime_dir":
        raise _invalid(path, f"is too long for a socket's path ({LONGEST_SOCKET_PATH} bytes)")
    return path


def _read_stored(path: Path) -> dict[str, object]:
    """Return the stored settings; none when there is no file."""
    try:
        stored = json.loads(path.read_text())
    except FileNotFoundError:
        return {}
    except PermissionError as error:
        raise _invalid(path, "can't be read by this user", "run it as root, with sudo") from error
    except (OSError, ValueError) as error:
        raise _invalid(path, f"can't be read: {error}") from error
    if not isinstance(stored, dict):
        raise _invalid(path, "is not a JSON object")
    return stored


def _invalid(path: Path, problem: str, remedy: str = "") -> InvalidArgument:
    """Return the error for settings that can't be used."""
    metadata = {"field": path, "problem": problem}
    return InvalidArgument("CONFIG_INVALID", f"{path} {problem}", metadata, remedy=remedy)
