# SPDX-License-Identifier: Apache-2.0
"""The BPF programs: loaded once, pinned, found again by a restarted service.

Below the orchestrator's bpffs lie ``maps/`` (by name), ``programs-<digest>/`` and ``links/``. The
digest covers the objects and their constants: as long as it is the same, a restart touches nothing.
With another one the new programs are loaded over the same maps, take their predecessors' places in
one step each, and no packet and no connection meets a gap.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
from typing import TYPE_CHECKING, NamedTuple

from aetherless_netplane import errors, libbpf
from aetherless_netplane.layout import Ipv4, Ipv6, SettingsData
from aetherless_netplane.libbpf import BpfError, LoadedObject

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_netplane.addresses import OuterRange

SECTION = ".rodata.settings"


class Hook(NamedTuple):
    """Where a program is attached to the control group's root; None for tc programs."""

    object_name: str
    attach_type: int | None


# enum bpf_attach_type; the names of what a client is told last, so that nothing is half in place.
HOOKS = {
    "getpeername4": Hook("connect", 29),
    "getpeername6": Hook("connect", 30),
    "bind4": Hook("bind", 8),
    "bind6": Hook("bind", 9),
    "connect4": Hook("connect", 10),
    "connect6": Hook("connect", 11),
    "to_sandbox": Hook("translate", None),
    "from_sandbox": Hook("translate", None),
}
OBJECTS = ("translate", "connect", "bind")


class Programs:
    """The programs of one orchestrator.

    Args:
        bpf_dir: the orchestrator's bpffs.
        objects_dir: where the .bpf.o files are.
        constants: what is constant for this orchestrator.
    """

    def __init__(self, bpf_dir: Path, objects_dir: Path, constants: SettingsData) -> None:
        self._objects_dir = objects_dir
        self._constants = bytes(constants)
        self.maps_dir = bpf_dir / "maps"
        self._links_dir = bpf_dir / "links"
        self._bpf_dir = bpf_dir
        self._programs_dir = bpf_dir / f"programs-{self._digest()}"
        self.tc: dict[str, int] = {}

    def load(self) -> bool:
        """Load and pin what is not pinned already; tell whether anything was.

        Raises:
            FailedPrecondition: BPF_LOAD_FAILED, with the verifier's log.
        """
        for folder in (self.maps_dir, self._links_dir):
            folder.mkdir(mode=0o700, exist_ok=True)
        fresh = not all((self._programs_dir / name).exists() for name in HOOKS)
        if fresh:
            shutil.rmtree(self._programs_dir, ignore_errors=True)
            self._programs_dir.mkdir(mode=0o700)
            for name in OBJECTS:
                self._load_object(name)
        for name, hook in HOOKS.items():
            if hook.attach_type is None:
                self.tc[name] = libbpf.get_pinned(str(self._programs_dir / name))
        return fresh

    def attach_hooks(self, cgroup: Path) -> None:
        """Attach the hooks on sockets to the control group's root, or put the new ones in place.

        Raises:
            FailedPrecondition: BPF_ATTACH_FAILED.
        """
        for name, hook in HOOKS.items():
            if hook.attach_type is not None:
                self._attach_hook(name, hook.attach_type, cgroup)

    def attach_tc(self, ifindex: int, link: str) -> None:
        """Attach the translation to a host link, or put the new one in place.

        Raises:
            FailedPrecondition: BPF_ATTACH_FAILED.
        """
        for name, egress in (("to_sandbox", True), ("from_sandbox", False)):
            try:
                libbpf.attach_tc(ifindex, egress=egress, program=self.tc[name])
            except BpfError as error:
                raise errors.bpf_attach_failed(name, link, error) from error

    def drop_old(self) -> None:
        """Unpin the programs of earlier digests; nothing runs them any more."""
        for folder in self._bpf_dir.glob("programs-*"):
            if folder != self._programs_dir:
                shutil.rmtree(folder)

    def close(self) -> None:
        """Close the descriptors; everything stays in place."""
        while self.tc:
            os.close(self.tc.popitem()[1])

    def _digest(self) -> str:
        """Return what tells these programs, with these constants, from others."""
        digest = hashlib.sha256(self._constants)
        for name in OBJECTS:
            digest.update(self._read_object(name))
        return digest.hexdigest()[:12]

    def _read_object(self, name: str) -> bytes:
        path = self._objects_dir / f"{name}.bpf.o"
        try:
            return path.read_bytes()
        except OSError as error:
            cause = BpfError(error.errno or 0, f"reading {path}")
            raise errors.bpf_load_failed(path.name, cause) from error

    def _load_object(self, name: str) -> None:
        """Load one object and pin its programs."""
        path = self._objects_dir / f"{name}.bpf.o"
        try:
            loaded = LoadedObject(str(path), str(self.maps_dir), {SECTION: self._constants})
        except BpfError as error:
            raise errors.bpf_load_failed(path.name, error) from error
        try:
            for program, hook in HOOKS.items():
                if hook.object_name == name:
                    libbpf.pin(loaded.program(program), str(self._programs_dir / program))
        finally:
            loaded.close()

    def _attach_hook(self, name: str, attach_type: int, cgroup: Path) -> None:
        """Attach one hook by a pinned link."""
        pinned = self._links_dir / name
        program = libbpf.get_pinned(str(self._programs_dir / name))
        try:
            if pinned.exists():
                _update(str(pinned), program)
            else:
                _create(str(pinned), program, attach_type, cgroup)
        except BpfError as error:
            raise errors.bpf_attach_failed(name, str(cgroup), error) from error
        finally:
            os.close(program)


def _create(pinned: str, program: int, attach_type: int, cgroup: Path) -> None:
    """Attach a program to a control group by a new link, and pin the link."""
    target = os.open(cgroup, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        link = libbpf.create_link(program, target, attach_type)
    finally:
        os.close(target)
    try:
        libbpf.pin(link, pinned)
    finally:
        os.close(link)


def _update(pinned: str, program: int) -> None:
    """Put a program behind a pinned link; the one that is there already is replaced by itself."""
    link = libbpf.get_pinned(pinned)
    try:
        libbpf.update_link(link, program)
    finally:
        os.close(link)


def constants_for(host_cookie: int, outer: OuterRange) -> SettingsData:
    """Return the read-only data of an orchestrator's programs."""
    return SettingsData(
        host_cookie=host_cookie,
        outer_ipv4=Ipv4(*outer.ipv4.network_address.packed),
        outer_ipv6=Ipv6(*outer.ipv6.network_address.packed),
    )


assert ctypes.sizeof(SettingsData) == 32  # noqa: S101, PLR2004  # as the objects have it
