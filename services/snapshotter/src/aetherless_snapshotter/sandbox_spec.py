# SPDX-License-Identifier: Apache-2.0
"""What a sandbox is made of: the files that it sees, its ids and its limits."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

LOG_TARGET = "/log/out"
HANDLER_SOCKET = "/run/aether/handler.sock"
HOME = "/home/fn"
SNAPSHOT_TARGET = "/snap"
#: Where a function's channel has its side socket.
CHANNEL_TARGET = "/channel"
CHANNEL_SOCKET = f"{CHANNEL_TARGET}/channel.sock"
FUNCTION_UID = 1000
#: What a program runs as that was given a container's capabilities.
ROOT_UID = 0
IDS_PER_SANDBOX = 65536
#: As many as the init takes (MAX_HELD in init.h).
MAX_HELD_FILES = 1024


@dataclass(frozen=True)
class Bind:
    """A folder or file of the host that the sandbox sees.

    Attributes:
        source: its path on the host (its mounts below come along).
        target: its absolute path inside.
        writable: else read-only, recursively.
        executable: else noexec.
    """

    source: Path
    target: str
    writable: bool = False
    executable: bool = True


@dataclass(frozen=True)
class Tree:
    """A writable folder: an overlay whose upper layer lives on the sandbox's own tmpfs.

    Attributes:
        tag: a short name of a-z, 0-9 and _; the host reads the layer at ``Sandbox.layer(tag)``.
        target: its absolute path inside.
        lowers: read-only folders of the host beneath, the uppermost first; none means empty.
        mode: permission bits of its top folder.
        owner: uid and gid, inside, of its top folder.
    """

    tag: str
    target: str
    lowers: tuple[Path, ...] = ()
    mode: int = 0o755
    owner: int = 0


@dataclass(frozen=True)
class HeldFile:
    """A file that the snapshot's program had open for writing, and whose number it knows.

    Attributes:
        tag: the tree that it lies in.
        path: its path below the tree's top.
        inode: its inode number.
    """

    tag: str
    path: str
    inode: int


@dataclass(frozen=True)
class SandboxSpec:
    """Everything ``Sandbox.create`` needs.

    Attributes:
        instance_id: the instance's id; also the name of its control group.
        folder: the instance's runtime folder; made (0700) when it is missing.
        cgroup: the orchestrator's control group, "aether-<id>" (Settings.cgroup_name).
        init_binary: ``aether-init`` in the prefix.
        criu_folder: folder with ``criu`` and ``criu.kdat``, read-only at /criu inside
            (see ``criu_folder.prepare``).
        etc_folder: the minimal /etc (see ``rootfs.write_etc``), read-only at /etc inside.
        uid_base: first host id of the range of 65536 mapped to 0 .. 65535 inside.
        log_file: bound at /log/out; made, and given to the function's uid, when it is missing.
        memory_limit: bytes for the tree.
        pids_limit: processes and threads of the tree.
        binds: further folders (the function's mounts, its interpreter's prefix).
        trees: further writable folders (the function's own); /tmp, /run, /var/tmp, /dev/shm and
            /home/fn are always there, see ``standard_trees``; one of the same tag takes its place.
        held: files that keep their inode numbers; they lie in the trees' uppermost lower layers.
        hostname: the host name inside.
        owner: uid and gid, inside, that the program runs as; its home belongs to it.
    """

    instance_id: str
    folder: Path
    cgroup: str
    init_binary: Path
    criu_folder: Path
    etc_folder: Path
    uid_base: int
    log_file: Path
    memory_limit: int
    pids_limit: int = 1024
    binds: tuple[Bind, ...] = ()
    trees: tuple[Tree, ...] = ()
    held: tuple[HeldFile, ...] = ()
    hostname: str = "aether"
    owner: int = FUNCTION_UID

    def all_trees(self) -> tuple[Tree, ...]:
        """Return the standard trees, replaced by ours of the same tag, and then our others."""
        mine = {tree.tag: tree for tree in self.trees}
        standard = tuple(mine.pop(tree.tag, tree) for tree in standard_trees(self.owner))
        return standard + tuple(mine.values())


def standard_trees(owner: int) -> tuple[Tree, ...]:
    """Return the writable folders that every sandbox has, without lower layers.

    The home belongs to ``owner``, the others to uid 0.
    """
    return (
        Tree("tmp", "/tmp", mode=0o1777),  # noqa: S108 - inside the sandbox
        Tree("run", "/run", mode=0o755),
        Tree("var_tmp", "/var/tmp", mode=0o1777),  # noqa: S108 - inside the sandbox
        Tree("dev_shm", "/dev/shm", mode=0o1777),  # noqa: S108 - inside the sandbox
        Tree("home", HOME, mode=0o700, owner=owner),
    )
