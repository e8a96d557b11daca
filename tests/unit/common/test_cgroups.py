# SPDX-License-Identifier: Apache-2.0
"""Finding control group hierarchies, on this host and on described ones."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from aetherless_common import errors
from aetherless_common.cgroups import cgroup_of, cgroup_v1_mount, cgroup_v2_mount

HYBRID = """\
cgroup /sys/fs/cgroup/memory cgroup rw,relatime,memory 0 0
cgroup /sys/fs/cgroup/cpu,cpuacct cgroup rw,cpu,cpuacct 0 0
cgroup2 /mnt/other cgroup2 rw 0 0
cgroup2 /sys/fs/cgroup/unified cgroup2 rw,relatime 0 0
"""
PURE = "cgroup2 /sys/fs/cgroup cgroup2 rw,nsdelegate 0 0\n"


@pytest.fixture
def mounts(tmp_path: Path) -> Path:
    """Return a file for a description of mounts."""
    return tmp_path / "mounts"


def test_hybrid(mounts: Path) -> None:
    """The usual place wins over another mount; v1 controllers have theirs."""
    mounts.write_text(HYBRID)
    assert cgroup_v2_mount(mounts) == Path("/sys/fs/cgroup/unified")
    assert cgroup_v1_mount("memory", mounts) == Path("/sys/fs/cgroup/memory")
    assert cgroup_v1_mount("cpuacct", mounts) == Path("/sys/fs/cgroup/cpu,cpuacct")
    assert cgroup_v1_mount("pids", mounts) is None


def test_pure(mounts: Path) -> None:
    """On a v2 host no controller has a v1 hierarchy."""
    mounts.write_text(PURE)
    assert cgroup_v2_mount(mounts) == Path("/sys/fs/cgroup")
    assert cgroup_v1_mount("memory", mounts) is None


def test_none(mounts: Path) -> None:
    """A host without cgroup v2 is told so, with the remedy."""
    mounts.write_text("tmpfs /sys/fs/cgroup tmpfs rw 0 0\n")
    with pytest.raises(errors.FailedPrecondition) as caught:
        cgroup_v2_mount(mounts)
    assert caught.value.metadata["feature"] == "cgroup2"
    assert "mount" in caught.value.remedy


def test_this_host() -> None:
    """This process's own group exists below the hierarchy that was found."""
    group = cgroup_of(os.getpid())
    assert str(os.getpid()) in (cgroup_v2_mount() / group.lstrip("/") / "cgroup.procs").read_text()
