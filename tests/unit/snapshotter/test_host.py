# SPDX-License-Identifier: Apache-2.0
"""What is read from the host: fingerprint, processes and memory, checks."""

from __future__ import annotations

import os
import subprocess
import sys
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import fingerprint, hostcheck, processes
from aetherless_snapshotter.hostcheck import HostChecks

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path


def test_the_processor_is_told_by_its_features(tmp_path: Path) -> None:
    """The order of the flags means nothing, a missing one does."""
    one, two, three = (tmp_path / name for name in ("one", "two", "three"))
    one.write_text("vendor_id\t: V\nflags\t\t: sse avx\n")
    two.write_text("vendor_id\t: V\nflags\t\t: avx sse\n")
    three.write_text("vendor_id\t: V\nflags\t\t: sse\n")
    assert fingerprint.cpu(one) == fingerprint.cpu(two) == ("V", "avx sse")
    assert fingerprint.cpu(one) != fingerprint.cpu(three)
    assert fingerprint.of_host("4.2.1").kernel == os.uname().release


@pytest.fixture
def parent() -> Iterator[subprocess.Popen[bytes]]:
    """Return a process with a child, both of which have started."""
    script = "sleep 60 & echo $!; wait"
    process = subprocess.Popen(["sh", "-c", script], stdout=subprocess.PIPE, process_group=0)
    yield process
    for pid in processes.children(process.pid):
        assert pid > 1
        os.kill(pid, 9)  # the shell reaps it and ends
    assert process.stdout is not None
    process.stdout.close()
    process.wait(timeout=10)


def test_a_tree_and_its_memory(parent: subprocess.Popen[bytes]) -> None:
    """Parent first, then its child; memory is counted for both."""
    assert parent.stdout is not None
    child = int(parent.stdout.readline())
    assert list(processes.tree(parent.pid)) == [parent.pid, child]
    assert processes.host_pid(parent.pid, child) == child  # the same pid namespace
    assert processes.host_pid(parent.pid, 0) == 0
    both, one = processes.memory(parent.pid), processes.memory(child)
    assert both.unique > one.unique > 0
    assert both.shared > 0


def test_memory_of_many(parent: subprocess.Popen[bytes], monkeypatch: pytest.MonkeyPatch) -> None:
    """The kernel's counters say what the page tables do, but for what a processor still keeps."""
    assert parent.stdout is not None
    parent.stdout.readline()
    exact = processes.memory(parent.pid)
    monkeypatch.setattr(processes, "FEW", 1)
    counted = processes.memory(parent.pid)
    kept = 2 * max(32, 2 * (os.cpu_count() or 1)) * (os.cpu_count() or 1) * 4096 * 2
    assert abs(counted.unique - exact.unique) <= kept
    assert counted.shared > 0


@pytest.mark.parametrize("few", [0, 64])
def test_what_is_gone_has_no_memory(monkeypatch: pytest.MonkeyPatch, few: int) -> None:
    """A process may end while it is looked at."""
    monkeypatch.setattr(processes, "FEW", few)
    process = subprocess.Popen([sys.executable, "-c", ""])
    process.wait(timeout=30)
    assert processes.memory(process.pid) == processes.Memory(0, 0)


def test_old_kernels_are_named() -> None:
    """The least version is in the message."""
    assert not hostcheck.check_kernel("6.6.1").reason
    assert not hostcheck.check_kernel("10.0").reason
    finding = hostcheck.check_kernel("6.1.0-13-amd64")
    assert finding.reason == "KERNEL_FEATURE_MISSING"
    assert "6.6" in finding.remedy


def test_missing_capabilities_are_named(tmp_path: Path) -> None:
    """A container's root lacks some."""
    status = tmp_path / "status"
    status.write_text("Name:\tx\nCapEff:\t00000000a80425fb\n")
    finding = hostcheck.check_capabilities(status)
    assert "CAP_SYS_ADMIN" in finding.message
    assert "CAP_CHOWN" not in finding.message
    status.write_text("CapEff:\t000001ffffffffff\n")
    assert not hostcheck.check_capabilities(status).reason


def test_missing_things_are_named(tmp_path: Path) -> None:
    """Overlay, user namespaces, CRIU, init: each with a remedy."""
    empty = tmp_path / "empty"
    empty.write_text("0\n")
    for finding in (
        hostcheck.check_overlay(empty),
        hostcheck.check_user_namespaces(empty),
        hostcheck.check_criu(tmp_path / "criu"),
        hostcheck.check_init(tmp_path / "aether-init"),
    ):
        assert finding.reason
        assert finding.remedy


@pytest.mark.root
def test_a_good_trial_is_remembered_until_something_changes(tmp_path: Path) -> None:
    """The trial is done once per boot, kernel, CRIU and init; a failed one is done again."""
    for name in ("criu", "aether-init"):
        binary = tmp_path / name
        binary.write_text("#!/bin/sh\necho Version: 4.2.1\n")
        binary.chmod(0o755)
    outcomes = [
        (False, "broken", "mend it", "RESTORE_FAILED"),
        (True, "1", "", ""),
        (True, "2", "", ""),
    ]
    trials = iter(outcomes)
    cache = tmp_path / "cache.json"

    def run(*, force: bool = False) -> str:
        checks = HostChecks(tmp_path, cache, lambda: next(trials)).run(force=force)
        assert [
            check.message for check in checks if not check.ok and check.name != "checkpoint-restore"
        ] == []
        assert checks[-1].name == "checkpoint-restore"
        return checks[-1].message

    assert run() == "broken"
    assert run() == "1"
    assert run() == "1"
    (tmp_path / "aether-init").write_text("#!/bin/sh\n# another\n")
    assert run() == "2"
    with pytest.raises(StopIteration):
        run(force=True)


def test_without_the_basics_there_is_no_trial(tmp_path: Path) -> None:
    """A trial on a host without CRIU would say nothing new."""
    checks = HostChecks(tmp_path, tmp_path / "cache.json", lambda: (True, "", "", "")).run()
    assert "checkpoint-restore" not in [check.name for check in checks]
    (criu,) = [check for check in checks if check.name == "criu"]
    assert (criu.ok, criu.reason) == (False, "CRIU_NOT_FOUND")


@pytest.mark.parametrize(
    ("v2", "v1", "message", "remedy"),
    [
        ("memory pids cpu", "", "v2 at ", ""),
        ("", "memory pids cpu", "limits by v1", ""),
        ("memory pids", "cpu,cpuacct", "v2 at ", ""),
        ("memory pids", "", "no cpu controller", "CONFIG_FAIR_GROUP_SCHED"),
        ("cpu", "pids", "no memory controller", "cgroup_enable=memory"),
        ("", "", "no memory and pids and cpu controller", "CONFIG_CGROUP_PIDS"),
    ],
)
def test_controllers(tmp_path: Path, v2: str, v1: str, message: str, remedy: str) -> None:
    """Each of them has to be in one of the hierarchies; what is missing is named."""
    (tmp_path / "cgroup.controllers").write_text(v2 + "\n")
    mounts = tmp_path / "mounts"
    lines = [f"cgroup2 {tmp_path} cgroup2 rw 0 0"]
    lines += [f"cgroup /v1/{name} cgroup rw,{name} 0 0" for name in v1.split()]
    mounts.write_text("\n".join(lines) + "\n")
    finding = hostcheck.check_cgroup(mounts)
    assert message in finding.message
    assert remedy in finding.remedy
    assert bool(finding.reason) == bool(remedy)


@pytest.mark.root
def test_this_host_is_well(prefix: Path) -> None:
    """The machine that runs the tests has what the tests need."""
    findings = [
        hostcheck.check_root(),
        hostcheck.check_kernel(os.uname().release),
        hostcheck.check_capabilities(),
        hostcheck.check_user_namespaces(),
        hostcheck.check_cgroup(),
        hostcheck.check_overlay(),
        hostcheck.check_criu(prefix / "criu"),
    ]
    assert [finding.message for finding in findings if finding.reason] == []
