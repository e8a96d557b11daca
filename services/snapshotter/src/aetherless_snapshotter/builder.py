# SPDX-License-Identifier: Apache-2.0
"""From a workload to the specification of its sandbox.

A golden's sandbox is made from the host's files; a clone's from what its snapshot wrote down, so
that an edited handler, or a moved interpreter, does not reach a snapshot made before.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from aetherless_snapshotter import channels, errors, inspection
from aetherless_snapshotter import workload as workloads
from aetherless_snapshotter.sandbox_spec import (
    CHANNEL_TARGET,
    Bind,
    SandboxSpec,
    Tree,
    standard_trees,
)
from aetherless_snapshotter.store import LAYERS

if TYPE_CHECKING:
    from collections.abc import Sequence
    from pathlib import Path

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_common.settings import Settings
    from aetherless_snapshotter.idranges import IdRanges
    from aetherless_snapshotter.logs import Logs
    from aetherless_snapshotter.manifest import Manifest
    from aetherless_snapshotter.roots import Root, Roots
    from aetherless_snapshotter.store import SnapshotStore
    from aetherless_snapshotter.workload import Program
    from aetherless_snapshotter.workshop import Workshop

#: The tag of the function's own folder among a sandbox's writable trees.
FUNCTION_TREE = "fn"


@dataclass(frozen=True)
class Built:
    """A specification, and the program that a golden starts in it."""

    spec: SandboxSpec
    program: Program


@dataclass(frozen=True)
class Builder:
    """Makes specifications, and owns the files that sandboxes of a function share."""

    settings: Settings
    workshop: Workshop
    ids: IdRanges
    roots: Roots
    criu_folder: Path
    etc_folder: Path

    @property
    def store(self) -> SnapshotStore:
        """The snapshots."""
        return self.workshop.store

    @property
    def logs(self) -> Logs:
        """The functions' logs."""
        return self.workshop.logs

    def build(self, instance_id: str, workload: instance_pb2.Workload, snapshot_id: str) -> Built:
        """Return what the sandbox of a golden (no snapshot) or a clone is made of.

        Raises:
            AetherlessError: the workload is refused, or the snapshot missing, damaged or foreign.
        """
        ids = self.ids.get(workload.function_id)
        owner = workloads.user_of(workload)
        if snapshot_id:
            manifest = self.store.check(snapshot_id)
            root = self.roots.find(workload)
            if not root.copy.exists():
                raise errors.snapshot_corrupt(snapshot_id, str(root.copy), "a copy", "none")
            program = manifest.program
            trees, held = self._clone_trees(snapshot_id, manifest, root, owner), manifest.held
        else:
            inspection.refuse_devices(workload)
            program = workloads.resolve(workload)
            root = self.roots.ensure(workload, ids)
            trees, held = _golden_trees(root, owner), ()
        folder = self.settings.instance_dir(instance_id)
        spec = SandboxSpec(
            instance_id=instance_id,
            folder=folder,
            cgroup=self.settings.cgroup_name,
            init_binary=self.settings.prefix / "aether-init",
            criu_folder=self.criu_folder,
            etc_folder=self.etc_folder,
            uid_base=ids.first,
            log_file=self.logs.ensure(workload.function_id, ids),
            memory_limit=workload.memory_limit_bytes,
            binds=(*_binds(root, program), *_channel(workload, folder)),
            trees=trees,
            held=held,
            owner=owner,
        )
        return Built(spec, program)

    def release(
        self, function_id: str, revision: int, others: Sequence[instance_pb2.Workload]
    ) -> None:
        """Remove a revision's copy, and a function's id range with its last one.

        Args:
            function_id: the function.
            revision: the revision.
            others: what the instances there are run.

        Raises:
            Aborted: OPERATION_IN_PROGRESS, an instance or a snapshot needs it.
        """
        needed = [*others, *(manifest.workload for manifest in self.store.manifests())]
        mine = [one for one in needed if one.function_id == function_id]
        if any(one.revision == revision for one in mine):
            raise errors.root_in_use(f"roots/{function_id}/{revision}")
        self.roots.remove(function_id, revision)
        self.let_go(function_id, others)

    def let_go(self, function_id: str, others: Sequence[instance_pb2.Workload]) -> None:
        """Release a function's id range when nothing of it is there; ``others`` as in release.

        A check's log goes with it; a function's stays, so that it can be read afterwards.
        """
        owners = {one.function_id for one in others}
        owners |= {manifest.workload.function_id for manifest in self.store.manifests()}
        owners |= {owner for owner, _ in self.roots.all()}
        if function_id not in owners:
            self.ids.release(function_id)
            if workloads.is_check(function_id):
                self.logs.remove(function_id)

    def _clone_trees(
        self, snapshot_id: str, manifest: Manifest, root: Root, owner: int
    ) -> tuple[Tree, ...]:
        """Return the writable trees of a clone: the golden's layers, read-only, below new ones."""
        layers = self.store.path(snapshot_id) / LAYERS
        owners = {tree.tag: tree.owner for tree in standard_trees(owner)}
        trees = []
        for tag, target in manifest.trees.items():
            lowers = (layers / tag,) if tag in owners else (layers / tag, root.copy)
            trees.append(_as_its_lower(Tree(tag, target, lowers, owner=owners.get(tag, owner))))
        return tuple(trees)


def _golden_trees(root: Root, owner: int) -> tuple[Tree, ...]:
    """Return the function's folder as a writable tree; none when the handler comes alone."""
    if not root.is_folder:
        return ()
    return (_as_its_lower(Tree(FUNCTION_TREE, str(root.path), (root.copy,), owner=owner)),)


def _as_its_lower(tree: Tree) -> Tree:
    """Give a tree's top folder the mode of its uppermost lower layer."""
    return replace(tree, mode=tree.lowers[0].stat().st_mode & 0o7777)


def _binds(root: Root, program: Program) -> tuple[Bind, ...]:
    """Return what of the host's files is bound at its own path, read-only."""
    binds = [Bind(tree, str(tree)) for tree in program.trees]
    if not root.is_folder:
        binds.append(Bind(root.copy, str(root.path)))
    return tuple(binds)


def _channel(workload: instance_pb2.Workload, folder: Path) -> tuple[Bind, ...]:
    """Return the bind of the folder in which the function's side socket is."""
    if not workload.ipc:
        return ()
    return (Bind(folder / channels.FOLDER, CHANNEL_TARGET, executable=False),)
