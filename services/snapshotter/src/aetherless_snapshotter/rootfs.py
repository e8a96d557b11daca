# SPDX-License-Identifier: Apache-2.0
"""The minimal /etc that every sandbox sees: what programs need of it, and no secret of the host."""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_snapshotter.sandbox_spec import FUNCTION_UID, HOME

if TYPE_CHECKING:
    from aetherless_common.settings import Settings

#: The constant address inside which the netplane answers name lookups; a snapshot freezes it.
RESOLVER = "198.18.254.53"

#: Users that masters which drop root name, with the numbers that every Debian gives them.
_SYSTEM_USERS = {"daemon": 1, "bin": 2, "sys": 3, "mail": 8, "www-data": 33, "nobody": 65534}
_SYSTEM_GROUPS = {"daemon": 1, "bin": 2, "sys": 3, "adm": 4, "tty": 5, "mail": 8, "www-data": 33}
_GROUPS = {"root": 0, **_SYSTEM_GROUPS, "fn": FUNCTION_UID, "nogroup": 65534}
_OWN = {
    "passwd": (
        f"root:x:0:0:root:{HOME}:/bin/sh\n"
        f"fn:x:{FUNCTION_UID}:{FUNCTION_UID}:function:{HOME}:/bin/sh\n"
        + "".join(
            f"{name}:x:{number}:{number}:{name}:/nonexistent:/usr/sbin/nologin\n"
            for name, number in _SYSTEM_USERS.items()
        )
    ),
    "group": "".join(f"{name}:x:{number}:\n" for name, number in _GROUPS.items()),
    "hosts": "127.0.0.1 localhost aether\n::1 localhost aether\n",
    "hostname": "aether\n",
    "resolv.conf": f"nameserver {RESOLVER}\noptions timeout:2 attempts:2\n",
    "nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\nservices: files\n",
}
#: What is copied from the host where it has it: public files only, each needed by some runtime.
_COPIED = (
    "ld.so.cache",
    "ld.so.conf",
    "localtime",
    "timezone",
    "mime.types",
    "services",
    "protocols",
    "os-release",
    "debian_version",
    "alternatives",
    "ca-certificates.conf",
    "ssl/certs",
    "ssl/openssl.cnf",
    "ld.so.conf.d",
)
_COPIED_PATTERNS = ("python3*", "java-*-openjdk", "ImageMagick-*", "fonts")


def write_etc(settings: Settings, host_etc: Path = Path("/etc")) -> Path:
    """Write the minimal /etc below the runtime folder, and return its path.

    It is named by its content, so that a changed one does not take an older one's place, which
    sandboxes that live still have bound.

    Raises:
        OSError: the runtime folder can't be written.
    """
    fresh = settings.runtime_dir / "etc" / ".new"
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(mode=0o755, parents=True)
    for name, text in _OWN.items():
        (fresh / name).write_text(text)
    for name in (*_COPIED, *_matches(host_etc)):
        _copy(host_etc / name, fresh / name)
    _make_readable(fresh)
    target = fresh.with_name(_digest(fresh))
    if target.exists():
        shutil.rmtree(fresh)
    else:
        fresh.rename(target)
    return target


def _digest(folder: Path) -> str:
    """Return 16 hex digits over all names, links and contents below a folder."""
    digest = hashlib.sha256()
    for path in sorted(folder.rglob("*")):
        digest.update(f"{path.relative_to(folder)}\0".encode())
        if path.is_symlink():
            digest.update(os.readlink(path).encode())  # noqa: PTH115 - the text as it stands
        elif path.is_file():
            digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


def _matches(host_etc: Path) -> list[str]:
    """Return the runtimes' own folders that this host has."""
    return sorted(path.name for pattern in _COPIED_PATTERNS for path in host_etc.glob(pattern))


def _copy(source: Path, target: Path) -> None:
    """Copy a file, a folder or a symlink; one that the host lacks is left out."""
    if not os.path.lexists(source):
        return
    target.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
    if source.is_dir() and not source.is_symlink():
        shutil.copytree(source, target, symlinks=True, ignore_dangling_symlinks=True)
    else:
        shutil.copy2(source, target, follow_symlinks=False)


def _make_readable(folder: Path) -> None:
    """Let the sandbox's ids read everything: inside, the host's root is nobody."""
    for parent, folders, names in os.walk(folder):
        Path(parent).chmod(0o755)
        for name in names:
            path = Path(parent, name)
            if not path.is_symlink():
                path.chmod(0o644)
        folders[:] = [name for name in folders if not Path(parent, name).is_symlink()]
