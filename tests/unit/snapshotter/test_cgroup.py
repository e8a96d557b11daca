# SPDX-License-Identifier: Apache-2.0
"""An instance's control groups, on this host's real hierarchies."""

from __future__ import annotations

import os
import secrets
import subprocess
import time
from typing import TYPE_CHECKING

import pytest

from aetherless_common.cgroups import cgroup_v1_mount, cgroup_v2_mount
from aetherless_snapshotter import cgroup
from aetherless_snapshotter.cgroup import INIT, TREE, InstanceGroup

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

pytestmark = pytest.mark.root

MEMORY = 32 << 20
PIDS = 17


@pytest.fixture
def parent() -> Iterator[str]:
    """Return the name of an orchestrator's group of this test alone."""
    name = f"aether-t{secrets.token_hex(3)}"
    yield name
    cgroup.remove_all(name)
    assert not places(name)


@pytest.fixture
def group(parent: str) -> InstanceGroup:
    """Return an instance's groups, made."""
    made = InstanceGroup(parent, "one")
    made.make(MEMORY, PIDS)
    return made


def places(name: str) -> list[Path]:
    """Return where a group exists."""
    mounts = (cgroup_v2_mount(), *map(cgroup_v1_mount, ("memory", "pids", "cpu")))
    return [mount / name for mount in mounts if mount and (mount / name).exists()]


def sleeper(descriptors: list[int]) -> subprocess.Popen[bytes]:
    """Start a process that joins groups by their descriptors and then sleeps."""
    joins = " ".join(f"echo 0 >&{descriptor};" for descriptor in descriptors)
    process = subprocess.Popen(
        ["bash", "-c", f"{joins} echo in; exec sleep 100"],
        pass_fds=descriptors,
        stdout=subprocess.PIPE,
    )
    assert process.stdout is not None
    assert process.stdout.readline() == b"in\n"
    return process


def test_limits_are_on_the_tree(group: InstanceGroup, parent: str) -> None:
    """The tree's group has the limits of memory and processes, wherever their controllers are."""
    memory = cgroup_v1_mount("memory")
    pids = cgroup_v1_mount("pids") or cgroup_v2_mount()
    name = "memory.limit_in_bytes" if memory else "memory.max"
    tree = (memory or cgroup_v2_mount()) / parent / "one" / TREE
    assert int((tree / name).read_text()) == MEMORY
    assert int((pids / parent / "one" / TREE / "pids.max").read_text()) == PIDS


def test_the_processor_is_shared_by_groups(group: InstanceGroup, parent: str) -> None:
    """All instances, each of them, and init and tree within it are groups of the default weight."""
    v1 = cgroup_v1_mount("cpu")
    mount, name, weight = (v1, "cpu.shares", 1024) if v1 else (cgroup_v2_mount(), "cpu.weight", 100)
    for path in (parent, f"{parent}/one", f"{parent}/one/{INIT}", f"{parent}/one/{TREE}"):
        assert int((mount / path / name).read_text()) == weight
    with group.open() as opened, sleeper(opened.tree_joins) as process:
        members = (mount / parent / "one" / TREE / "cgroup.procs").read_text()
        assert members == f"{process.pid}\n"
        group.kill()


def test_kill_and_remove(group: InstanceGroup, parent: str) -> None:
    """Killing ends all processes of the instance; removing leaves no group of it."""
    with group.open() as opened, sleeper(opened.tree_joins) as process:
        assert str(process.pid) in (group.path / TREE / "cgroup.procs").read_text().split()
        group.kill()
        assert process.wait(timeout=10) == -9
    group.remove()
    assert not places(f"{parent}/one")


def test_the_handed_descriptor_kills_the_tree_only(group: InstanceGroup) -> None:
    """What an init is handed to end its tree does not reach the init's own group."""
    with (
        group.open() as opened,
        sleeper(opened.joins) as init,
        sleeper(opened.tree_joins) as tree,
    ):
        os.write(opened.kill, b"1")
        assert tree.wait(timeout=10) == -9
        assert init.poll() is None
        group.kill()
        assert init.wait(timeout=10) == -9


def test_removing_waits_for_the_last_process(
    group: InstanceGroup, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A group in which something lives is not removed, and that is told."""
    monkeypatch.setattr(cgroup, "_EMPTY_SECONDS", 0.1)
    with group.open() as opened, sleeper(opened.tree_joins) as process:
        begun = time.monotonic()
        with pytest.raises(TimeoutError, match="still live"):
            group.remove()
        assert time.monotonic() - begun >= 0.1
        group.kill()
        process.wait(timeout=10)


def test_what_is_missing_is_removed_already(parent: str) -> None:
    """Killing and removing groups that were never made is no error."""
    group = InstanceGroup(parent, "never")
    group.kill()
    group.remove()


def test_out_of_memory_is_told(group: InstanceGroup) -> None:
    """The limit being met shows in the descriptor that the init is handed."""
    eater = "import sys; sys.stdin.readline(); b = bytearray(200 << 20); b[::4096] = b[::4096]"
    with group.open() as opened:
        command = ["bash", "-c", 'for fd in $1; do echo 0 >&$fd; done; exec python3 -c "$2"']
        joins = " ".join(map(str, opened.tree_joins))
        done = subprocess.run(
            [*command, "bash", joins, eater],
            input=b"\n",
            pass_fds=opened.tree_joins,
            timeout=30,
            check=False,
        )
        assert done.returncode == -9
        if opened.oom_event is not None:
            assert os.eventfd_read(opened.oom_event) >= 1
        else:
            assert opened.oom_counter is not None
            assert b"oom_kill 1" in os.pread(opened.oom_counter, 4096, 0)


def test_the_limit_of_processes_is_told(group: InstanceGroup) -> None:
    """Whether the tree met it, and what it is."""
    assert group.process_limit_met() == 0
    fork = "import os,time\nfor _ in range(99):\n if not os.fork(): time.sleep(60)"
    with group.open() as opened:
        command = ["bash", "-c", 'for fd in $1; do echo 0 >&$fd; done; exec python3 -c "$2"']
        joins = " ".join(map(str, opened.tree_joins))
        done = subprocess.run(
            [*command, "bash", joins, fork],
            pass_fds=opened.tree_joins,
            stderr=subprocess.DEVNULL,
            timeout=30,
            check=False,
        )
    assert done.returncode == 1
    assert group.process_limit_met() == PIDS
    assert [group.process_limit_newly_met() for _ in range(2)] == [PIDS, 0]
    assert len(group.tree_processes()) == PIDS - 1
    group.kill()


def test_memory_that_a_snapshot_stores(group: InstanceGroup) -> None:
    """Anonymous memory counts, and what is on tmpfs; what a disk has does not."""
    assert group.unreclaimable() == 0
    eat = "import sys; b = bytearray(8 << 20); b[::4096] = b[::4096]; print(1, flush=True); input()"
    with group.open() as opened:
        command = ["bash", "-c", 'for fd in $1; do echo 0 >&$fd; done; exec python3 -c "$2"']
        process = subprocess.Popen(
            [*command, "bash", " ".join(map(str, opened.tree_joins)), eat],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            pass_fds=opened.tree_joins,
        )
        with process:
            assert process.stdout is not None
            assert process.stdout.readline() == b"1\n"
            assert 8 << 20 <= group.unreclaimable() < MEMORY
            group.kill()


@pytest.mark.parametrize("name", ["", ".", "..", "a/b", "/"])
def test_names_that_lead_elsewhere_are_refused(name: str) -> None:
    """No name can make other groups than an instance's be killed."""
    for parent, instance in ((name, "one"), ("aether-tnone", name)):
        with pytest.raises(ValueError, match="not the name"):
            InstanceGroup(parent, instance)
    with pytest.raises(ValueError, match="not the name"):
        cgroup.remove_all(name)
