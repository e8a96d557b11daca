# SPDX-License-Identifier: Apache-2.0
"""An instance's control groups: ``aether-<id>/<instance>/{init,tree}`` on every hierarchy used.

The limits are on ``tree``. Where memory, pids and cpu are v1 hierarchies, the groups are made there
as well; ``cgroup.kill`` is always v2's. Groups are killed as a whole, never process by process.

The processor has no limit but weights: where it is short, all functions together count as much as
one other group (or, in v1's root, as one process), each instance as much as another, and an init as
much as its whole tree.
"""

from __future__ import annotations

import errno
import os
import time
from contextlib import ExitStack
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Self

from aetherless_common.cgroups import cgroup_v1_mount, cgroup_v2_mount

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

INIT = "init"
TREE = "tree"
_CONTROLLERS = ("memory", "pids", "cpu")
_EMPTY_SECONDS = 10.0
_POLL_SECONDS = 0.002


@dataclass
class GroupDescriptors:
    """What an init is handed of its groups; closed by leaving the context.

    Attributes:
        joins: ``cgroup.procs`` of ``init``, one per hierarchy.
        tree_joins: the same of ``tree``.
        kill: ``cgroup.kill`` of ``tree``.
        oom_event: an eventfd that v1 signals when the tree's limit was met; None on v2.
        oom_counter: ``memory.events`` of the tree; None on v1.
    """

    joins: list[int] = field(default_factory=list)
    tree_joins: list[int] = field(default_factory=list)
    kill: int = -1
    oom_event: int | None = None
    oom_counter: int | None = None
    _stack: ExitStack = field(default_factory=ExitStack)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._stack.close()

    def open(self, path: Path, flags: int) -> int:
        """Open a file of a group until the context is left."""
        return self.keep(os.open(path, flags | os.O_CLOEXEC))

    def keep(self, descriptor: int) -> int:
        """Close the descriptor when the context is left."""
        self._stack.callback(os.close, descriptor)
        return descriptor

    def all(self) -> list[int]:
        """Return every descriptor that is handed over."""
        optional = (self.oom_event, self.oom_counter)
        return [
            *self.joins,
            *self.tree_joins,
            self.kill,
            *(one for one in optional if one is not None),
        ]


class InstanceGroup:
    """The control groups of one instance."""

    def __init__(self, parent: str, instance: str) -> None:
        self._parent = _checked(parent)
        self._instance = _checked(instance)
        self._v2 = cgroup_v2_mount()
        self._v1 = {name: path for name in _CONTROLLERS if (path := cgroup_v1_mount(name))}
        self._refused = 0  # forks, up to when it was asked last

    @property
    def path(self) -> Path:
        """The instance's group in the v2 hierarchy."""
        return self._v2 / self._parent / self._instance

    def make(self, memory_limit: int, pids_limit: int) -> None:
        """Make the groups, weigh them, set the tree's limits (bytes; processes with threads).

        Raises:
            OSError: a group can't be made, or a limit not set.
        """
        for mount in self._mounts():
            for leaf in (INIT, TREE):
                (mount / self._parent / self._instance / leaf).mkdir(parents=True, exist_ok=True)
        self._limit_memory(memory_limit)
        self._limit_pids(pids_limit)
        self._weigh()

    def open(self) -> GroupDescriptors:
        """Open what the init is handed."""
        opened = GroupDescriptors()
        try:
            self._open_into(opened)
        except OSError:
            opened.__exit__()
            raise
        return opened

    def unreclaimable(self) -> int:
        """Return the bytes of the tree's memory that have no file on a disk behind them.

        That is what a snapshot of the tree stores: anonymous memory, and what it wrote on tmpfs.
        """
        text = (self._tree("memory") / "memory.stat").read_text()
        used = {key: int(value) for key, value in (line.split() for line in text.splitlines())}
        return used["rss" if "memory" in self._v1 else "anon"] + used["shmem"]

    def process_limit_met(self) -> int:
        """Return the limit of processes and threads when the tree has ever met it, else 0."""
        return self._process_limit() if self._forks_refused() else 0

    def process_limit_newly_met(self) -> int:
        """Return the same of the time since this was asked last; 0 when the group is gone."""
        try:
            before, self._refused = self._refused, self._forks_refused()
            return self._process_limit() if self._refused > before else 0
        except OSError:
            return 0

    def tree_processes(self) -> list[int]:
        """Return the processes in the tree's group, by their ids on this host."""
        return [int(pid) for pid in (self.path / TREE / "cgroup.procs").read_text().split()]

    def kill(self) -> None:
        """End every process of the instance, its init included; one that is gone is left alone.

        SAFETY: the group holds this instance's processes only; nothing is addressed by pid.
        """
        kill_group(self.path)

    def kill_tree(self) -> None:
        """End every process of the tree; the init lives on.

        SAFETY: as ``kill``; the init is in a group beside it.
        """
        kill_group(self.path / TREE)

    def remove(self) -> None:
        """Wait until nothing lives in the groups and remove them; missing ones are left alone.

        Raises:
            TimeoutError: something still lives in them.
        """
        for mount in self._mounts():
            remove_group(mount / self._parent / self._instance)

    def _mounts(self) -> list[Path]:
        return [self._v2, *dict.fromkeys(self._v1.values())]

    def _tree(self, controller: str) -> Path:
        """Return the tree's group in the hierarchy that has the controller."""
        return self._v1.get(controller, self._v2) / self._parent / self._instance / TREE

    def _limit_memory(self, limit: int) -> None:
        tree = self._tree("memory")
        if "memory" in self._v1:
            (tree / "memory.limit_in_bytes").write_text(str(limit))
            return
        self._enable("memory")
        (tree / "memory.max").write_text(str(limit))
        (tree / "memory.oom.group").write_text("1")

    def _forks_refused(self) -> int:
        """Return how often the limit of processes and threads stood in the tree's way."""
        text = (self._tree("pids") / "pids.events").read_text()
        return int(dict(line.split() for line in text.splitlines())["max"])

    def _process_limit(self) -> int:
        return int((self._tree("pids") / "pids.max").read_text())

    def _limit_pids(self, limit: int) -> None:
        if "pids" not in self._v1:
            self._enable("pids")
        (self._tree("pids") / "pids.max").write_text(str(limit))

    def _weigh(self) -> None:
        """Have the kernel share the processor by groups; a new group has its default weight."""
        if "cpu" not in self._v1:
            self._enable("cpu")

    def _enable(self, controller: str) -> None:
        """Hand a v2 controller down to the tree."""
        group = self._v2
        for part in (self._parent, self._instance, TREE):
            control = group / "cgroup.subtree_control"
            if controller not in control.read_text().split():
                control.write_text(f"+{controller}")
            group /= part

    def _open_into(self, opened: GroupDescriptors) -> None:
        for mount in self._mounts():
            group = mount / self._parent / self._instance
            opened.joins.append(opened.open(group / INIT / "cgroup.procs", os.O_WRONLY))
            opened.tree_joins.append(opened.open(group / TREE / "cgroup.procs", os.O_WRONLY))
        opened.kill = opened.open(self.path / TREE / "cgroup.kill", os.O_WRONLY)
        tree = self._tree("memory")
        if "memory" in self._v1:
            opened.oom_event = _oom_event(opened, tree)
        else:
            opened.oom_counter = opened.open(tree / "memory.events", os.O_RDONLY)


def _checked(name: str) -> str:
    """Return the name of one group.

    SAFETY: an empty name, or one that leads elsewhere, would have other groups killed.
    """
    if not name or name in {".", ".."} or "/" in name:
        raise ValueError(f"not the name of a control group: {name!r}")
    return name


def _oom_event(opened: GroupDescriptors, tree: Path) -> int:
    """Register an eventfd for the tree's OOMs (v1); it stays registered while somebody has it."""
    event = opened.keep(os.eventfd(0, os.EFD_CLOEXEC | os.EFD_NONBLOCK))
    control = os.open(tree / "memory.oom_control", os.O_RDONLY | os.O_CLOEXEC)
    try:
        (tree / "cgroup.event_control").write_text(f"{event} {control}")
    finally:
        os.close(control)
    return event


def kill_group(group: Path) -> None:
    """End every process of a v2 group and of those below it; a missing group is left alone.

    SAFETY: the caller names a group of ours; the v2 root has no ``cgroup.kill`` to write to.
    """
    try:
        (group / "cgroup.kill").write_text("1")
    except FileNotFoundError:
        return


def remove_group(group: Path) -> None:
    """Remove a group and those below it as soon as they are empty.

    Raises:
        TimeoutError: something still lives in them.
    """
    until = time.monotonic() + _EMPTY_SECONDS
    for one in _below(group):
        while not _removed(one):
            if time.monotonic() > until:
                raise TimeoutError(f"processes still live in {one}")
            time.sleep(_POLL_SECONDS)


def _below(group: Path) -> Iterator[Path]:
    """Yield the groups below, the deepest first, and the group itself."""
    for parent, _, _ in os.walk(group, topdown=False):
        yield group.__class__(parent)


def _removed(group: Path) -> bool:
    """Try to remove one group; a missing one counts as removed."""
    try:
        group.rmdir()
    except FileNotFoundError:
        return True
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
        return False
    return True


def remove_all(parent: str) -> None:
    """End all that lives below the orchestrator's group, and remove it from every hierarchy.

    Raises:
        TimeoutError: something still lives in it.
    """
    kill_group(cgroup_v2_mount() / _checked(parent))
    mounts = [cgroup_v2_mount(), *(cgroup_v1_mount(name) for name in _CONTROLLERS)]
    for mount in dict.fromkeys(one for one in mounts if one):
        remove_group(mount / parent)
