# SPDX-License-Identifier: Apache-2.0
"""Finds handlers, and the folder that belongs to one."""

from __future__ import annotations

import os
import pwd
from pathlib import Path

# A handler that lies directly in one of these brings only itself: the folder is not its own.
SHARED_FOLDERS = frozenset(
    Path("/") / name
    for name in (
        *("", "tmp", "var/tmp", "dev/shm", "run", "etc", "opt", "srv", "var", "var/lib"),
        *("home", "root", "media", "mnt"),
    )
)
# What the kernel shows as files can't be copied.
KERNEL_TREES = (Path("/proc"), Path("/sys"))
# Below these nothing is a function's own: the sandbox sees them anyway, or must not.
SYSTEM_TREES = tuple(
    Path(name)
    for name in ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/proc", "/sys", "/dev")
)


class PathError(Exception):
    """A path of the configuration can't be used."""

    def __init__(self, problem: str, remedy: str, reason: str = "CONFIG_INVALID") -> None:
        super().__init__(problem)
        self.problem = problem
        self.remedy = remedy
        self.reason = reason


def find_handler(written: str, folder: Path) -> Path:
    """Return the absolute path of a handler, looked for beside the file, then in the cwd.

    Raises:
        PathError: there is none, there are two, or it can't be run.
    """
    candidates = _candidates(written, folder)
    found = [path for path in candidates if _exists(path)]
    if not found:
        looked = " and ".join(str(path) for path in candidates)
        remedy = f"write the path relative to {folder}, or an absolute one"
        raise PathError(f"no such file; looked for {looked}", remedy, "HANDLER_NOT_FOUND")
    if len(found) > 1 and not found[0].samefile(found[1]):
        both = " and ".join(str(path) for path in found)
        raise PathError(f"two files fit: {both}", "write an absolute path")
    return _runnable(found[0])


def find_root(written: str, folder: Path, handler: Path) -> Path:
    """Return the absolute path of a function's declared folder.

    Raises:
        PathError: it is no folder, or the handler is not in it.
    """
    root = _clean(folder / written)
    if root == Path("/") or any(root.is_relative_to(tree) for tree in KERNEL_TREES):
        raise PathError(f"{root} is the host's own", "name the folder that holds the program")
    if not root.is_dir():
        raise PathError(f"no such folder: {root}", "name the folder that holds the program")
    if not handler.is_relative_to(root):
        raise PathError(f"the handler {handler} is not below {root}", "name a folder above it")
    return root


def check_mount(written: str) -> None:
    """See that a folder or file of the host that a function asks for is there.

    Raises:
        PathError: it is not.
    """
    if not _exists(Path(written)):
        raise PathError(f"no such file or folder: {written}", "make it, or leave it out")


def default_root(handler: Path) -> Path | None:
    """Return the folder of a handler when it is the function's own, else None."""
    parent = handler.parent
    shared = parent in SHARED_FOLDERS or parent in _homes()
    if shared or any(parent.is_relative_to(tree) for tree in SYSTEM_TREES):
        return None
    return parent


def _exists(path: Path) -> bool:
    try:
        return path.exists()
    except OSError as error:
        raise PathError(f"can't be looked for: {error.strerror}", "shorten the path") from error


def _candidates(written: str, folder: Path) -> list[Path]:
    path = Path(written)
    if path.is_absolute():
        return [_clean(path)]
    both = [_clean(folder / path), _clean(Path.cwd() / path)]
    return both[:1] if both[0] == both[1] else both


def _clean(path: Path) -> Path:
    # normpath and not resolve: a link (venv/bin/python) must keep the name it is called by.
    return Path(os.path.normpath(Path.cwd() / path))


def _runnable(path: Path) -> Path:
    if not path.is_file():
        raise PathError(f"{path} is no regular file", "name the program itself")
    if path.suffix != ".py" and not path.stat().st_mode & 0o111:
        remedy = f"chmod +x {path}"
        raise PathError(f"{path} is not executable", remedy, "HANDLER_NOT_EXECUTABLE")
    return path


def _homes() -> frozenset[Path]:
    return frozenset(Path(entry.pw_dir) for entry in pwd.getpwall() if entry.pw_dir)
