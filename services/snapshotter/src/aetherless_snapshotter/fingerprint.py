# SPDX-License-Identifier: Apache-2.0
"""What a snapshot depends on besides its own files: kernel, CRIU and processor."""

from __future__ import annotations

import hashlib
import os
import platform
from dataclasses import asdict, dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_FEATURE_KEYS = ("flags", "Features")  # x86-64, arm64
_VENDOR_KEYS = ("vendor_id", "CPU implementer")


@dataclass(frozen=True)
class Fingerprint:
    """Two hosts with equal fingerprints restore each other's snapshots."""

    kernel: str
    criu: str
    machine: str
    cpu: str

    def differences(self, other: Fingerprint) -> list[tuple[str, str, str]]:
        """Return (what, own value, other value) of each field that differs."""
        mine, theirs = asdict(self), asdict(other)
        return [(key, mine[key], theirs[key]) for key in mine if mine[key] != theirs[key]]


def of_host(criu_version: str) -> Fingerprint:
    """Return this host's fingerprint."""
    return Fingerprint(os.uname().release, criu_version, platform.machine(), cpu(CPUINFO))


def cpu(cpuinfo: Path) -> str:
    """Return the processor's vendor and a hash over its features, as ``cpuinfo`` tells them.

    A restored program goes on with code paths and register sets it chose by these features.
    """
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    vendor = next((fields[key] for key in _VENDOR_KEYS if key in fields), "unknown")
    features = next((fields[key] for key in _FEATURE_KEYS if key in fields), "")
    digest = hashlib.sha256(" ".join(sorted(features.split())).encode()).hexdigest()
    return f"{vendor} {digest[:16]}"
