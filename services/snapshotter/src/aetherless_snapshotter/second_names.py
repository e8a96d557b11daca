# SPDX-License-Identifier: Apache-2.0
"""The second names of a copy's files, by which the next revision's copy takes what is unchanged.

Each regular file of a copy has one, and they serve two purposes.

An overlay answers with the number of the lower inode also after a file was written, unless that has
several names (fs/overlayfs/inode.c, ovl_hash_bylower). A written file's own number is one that can
be had again in a clone: see ``inodes``.

And a second name says which state of which file was copied: as long as the original is in that
state, the next copy's file is one more link to the same inode. A file is written to only while it
is copied: sandboxes have the copies as read-only lower layers (``init/launch.c``), and the removal
of one only takes names away. So revisions can share files that none of them sees change.

Size, inode and times tell the state of an original only where each change moves its change time:

- Writing to a mapping moves it at the first write to a page and then not again until the page was
  written back, on a tmpfs never. So a file's state is only noted when nobody had it open for
  writing before it was read, which the kernel says by granting a lease (fcntl(2), F_SETLEASE).
  Whoever opens or maps it afterwards moves its change time with the first byte.
- Times are as coarse as the kernel's tick: of a file that changed just before it was read, no state
  is noted.
- What other hosts, or programs that serve a file system, change moves nothing here: only file
  systems of this kernel's own are trusted.
- After a crash of the host a copy may lack what was not on the disk yet: a state counts only in the
  boot in which it was noted.
"""

from __future__ import annotations

import contextlib
import fcntl
import itertools
import os
import signal
import time
from pathlib import Path
from typing import TYPE_CHECKING, Self

from aetherless_snapshotter import files

if TYPE_CHECKING:
    from types import TracebackType

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_MOUNTS = Path("/proc/self/mountinfo")
#: File systems whose files nobody changes but through this kernel.
_OWN_FILE_SYSTEMS = frozenset({"ext2", "ext3", "ext4", "xfs", "btrfs", "f2fs", "tmpfs"})
#: How long ago a file has to have changed; a kernel's tick is 10 ms at most.
_SETTLED_NS = 100_000_000


class SecondNames:
    """Makes the regular files of one copy. A context manager: it holds descriptors.

    Args:
        folder: is made, and gets the second names.
        before: the second names of the revision before; None, or one that is gone, shares nothing.
        owner: the host id that the files belong to.
    """

    def __init__(self, folder: Path, before: Path | None, owner: int) -> None:
        self._owner = owner
        self._settled_before = time.time_ns() - _SETTLED_NS
        self._own_devices = _own_devices()
        self._numbers = itertools.count()
        boot = _BOOT_ID.read_text().strip()
        (folder / boot).mkdir(mode=0o700, parents=True)
        self._names = os.open(folder / boot, files.FOLDER_FLAGS)
        self._before: int | None = None
        with contextlib.suppress(FileNotFoundError):
            self._before = os.open(before / boot, files.FOLDER_FLAGS) if before else None

    def __enter__(self) -> Self:
        """Return itself."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        """Close the descriptors."""
        os.close(self._names)
        if self._before is not None:
            os.close(self._before)

    def make(self, source: int, target: int, name: str, status: os.stat_result) -> int:
        """Make a file of the copy: a link to the one of the revision before, or a copy.

        Args:
            source: a descriptor of the folder that the original lies in.
            target: a descriptor of the folder that gets the copy.
            name: the file's name in both.
            status: the original's.

        Returns the file's bytes.
        """
        state = self._state(status)
        if self._shared(state, target, name):
            return status.st_size
        noted = self._is_telling(source, name, status)  # before it is read, or it proves nothing
        size = files.copy_regular(source, target, name, status, (self._owner, self._owner))
        if not noted or not self._named(state, target, name):
            self._named(str(next(self._numbers)), target, name)
        return size

    def _state(self, status: os.stat_result) -> str:
        """Return the name for a copy of a file in the state that it has now."""
        parts = (
            self._owner,
            status.st_dev,
            status.st_ino,
            status.st_size,
            status.st_mtime_ns,
            status.st_ctime_ns,
        )
        return "state" + "".join(f"-{part:x}" for part in parts)

    def _shared(self, state: str, target: int, name: str) -> bool:
        """Link what the revision before has of this state, if anything, under both names.

        A state that this copy has already is of one of several links: those become separate files.
        """
        if self._before is None:
            return False
        try:
            os.link(state, state, src_dir_fd=self._before, dst_dir_fd=self._names)
        except (FileNotFoundError, FileExistsError):
            return False
        os.link(state, name, src_dir_fd=self._names, dst_dir_fd=target)
        return True

    def _named(self, second: str, target: int, name: str) -> bool:
        """Give a file a second name; tells whether it was still free."""
        try:
            os.link(name, second, src_dir_fd=target, dst_dir_fd=self._names)
        except FileExistsError:
            return False
        return True

    def _is_telling(self, source: int, name: str, status: os.stat_result) -> bool:
        """Tell whether each later change of a file will be seen by its state."""
        settled = status.st_ctime_ns < self._settled_before
        device = f"{os.major(status.st_dev)}:{os.minor(status.st_dev)}"
        return settled and device in self._own_devices and _has_no_writer(source, name)


def _own_devices() -> frozenset[str]:
    """Return the devices ("major:minor") of mounted file systems of this kernel's own."""
    found = set()
    for line in _MOUNTS.read_text(encoding="utf-8", errors="replace").splitlines():
        mount, _, kind = line.partition(" - ")
        if kind.split(" ", 1)[0] in _OWN_FILE_SYSTEMS:
            found.add(mount.split(" ", 3)[2])
    return frozenset(found)


def _has_no_writer(folder: int, name: str) -> bool:
    """Tell whether nobody has a file open, or mapped, for writing.

    A lease to read is granted only then. It is given back at once; who opens the file meanwhile
    waits for that, and the kernel tells us so by a signal: by one that is ignored unless somebody
    handles it, where the usual one (SIGIO) would end this process.
    """
    descriptor = os.open(name, os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC, dir_fd=folder)
    try:
        fcntl.fcntl(descriptor, fcntl.F_SETSIG, signal.SIGURG)
        fcntl.fcntl(descriptor, fcntl.F_SETLEASE, fcntl.F_RDLCK)
    except OSError:
        return False  # somebody has, or this file system can't tell
    finally:
        os.close(descriptor)
    return True
