# SPDX-License-Identifier: Apache-2.0
"""The folder that sandboxes see at /criu: the CRIU binary, and its cache of the kernel's features.

Without the cache each restore probes the kernel anew, for 5 to 9 ms. CRIU writes it to a tmpfs
only, and reads it from anywhere; a sandbox's is made in a user namespace, where fewer features are
to be had than outside.
"""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from aetherless_snapshotter import errors

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_common.settings import Settings

CACHE = "criu.kdat"
_PROBE_SECONDS = 30
_NAMESPACES = ("--user", "--map-root-user", "--net", "--ipc", "--uts", "--pid", "--fork")
#: The folder is any that exists: the tmpfs on it is in a mount namespace of its own.
_PROBE = """
mount -t tmpfs tmpfs /mnt && ip link set lo up || exit 1
XDG_RUNTIME_DIR=/mnt "$1" --unprivileged check >&2 || exit 1
cat /mnt/criu.kdat
"""


def prepare(settings: Settings) -> Path:
    """Make the folder below the runtime folder, and return its path.

    Raises:
        AetherlessError: CRIU is missing (CRIU_NOT_FOUND) or can't probe the kernel in a user
            namespace (KERNEL_FEATURE_MISSING).
    """
    binary = settings.prefix / "criu"
    if not binary.is_file():
        raise errors.criu_not_found(binary)
    folder = settings.runtime_dir / "criu"
    folder.mkdir(mode=0o755, exist_ok=True)
    _place(folder / "criu", binary.read_bytes(), 0o555)
    _place(folder / CACHE, _probe(binary), 0o444)
    return folder


def _probe(binary: Path) -> bytes:
    """Return the cache that CRIU makes in namespaces such as a sandbox's."""
    command = [
        "unshare",
        *_NAMESPACES,
        "--mount",
        "--mount-proc",
        "sh",
        "-c",
        _PROBE,
        "sh",
        str(binary),
    ]
    done = subprocess.run(command, capture_output=True, timeout=_PROBE_SECONDS, check=False)
    if done.returncode or not done.stdout:
        words = done.stderr.decode(errors="replace").strip().splitlines()
        said = words[-1] if words else "it said nothing"
        raise errors.kernel_feature_missing(
            "user namespaces",
            f"CRIU can't probe the kernel in a user namespace: {said}",
            "allow user namespaces for root (sysctl user.max_user_namespaces)",
        )
    return done.stdout


def _place(path: Path, content: bytes, mode: int) -> None:
    """Write a file beside its place and move it there: what runs or is bound stays whole."""
    if path.is_file() and path.read_bytes() == content:
        return
    fresh = path.with_name(f".{path.name}")
    fresh.write_bytes(content)
    fresh.chmod(mode)
    os.replace(fresh, path)  # noqa: PTH105 - atomic, as the name says
