# SPDX-License-Identifier: Apache-2.0
"""What a snapshot depends on besides files: kernel, CRIU and processor."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path

CPUINFO = Path("/proc/cpuinfo")
_FEATURE_KEYS = ("flags", "Features")  # x86-64, arm64
_VENDOR_KEYS = ("vendor_id", "CPU implementer")


@dataclass(frozen=True)
class Fingerprint:
    """Two hosts with equal fingerprints restore each other's snapshots.

    A restored program goes on with code paths and register sets that it chose by the processor's
    features.
    """

    kernel: str
    criu: str
    machine: str
    #: The processor's vendor.
    cpu: str
    #: What the processor can, as /proc/cpuinfo names it, in one line sorted by name.
    features: str

    def differences(self, other: Fingerprint) -> list[tuple[str, str, str]]:
        """Return (what, own value, other value) of each field that differs."""
        found = [
            (name, mine, theirs)
            for name in ("kernel", "criu", "machine", "cpu")
            if (mine := getattr(self, name)) != (theirs := getattr(other, name))
        ]
        lost = _without(self.features, other.features)
        gained = _without(other.features, self.features)
        if lost or gained:
            found.append(("cpu features", lost or f"no {gained}", gained or f"no {lost}"))
        return found


def of_host(criu_version: str) -> Fingerprint:
    """Return this host's fingerprint."""
    return Fingerprint(os.uname().release, criu_version, platform.machine(), *cpu(CPUINFO))


def cpu(cpuinfo: Path) -> tuple[str, str]:
    """Return the processor's vendor and its features, as ``cpuinfo`` tells them."""
    fields: dict[str, str] = {}
    for line in cpuinfo.read_text(encoding="utf-8").splitlines():
        key, _, value = line.partition(":")
        fields.setdefault(key.strip(), value.strip())
    vendor = next((fields[key] for key in _VENDOR_KEYS if key in fields), "unknown")
    features = next((fields[key] for key in _FEATURE_KEYS if key in fields), "")
    return vendor, " ".join(sorted(features.split()))


def _without(features: str, others: str) -> str:
    """Return the features that the others do not have."""
    return " ".join(sorted(set(features.split()) - set(others.split())))
