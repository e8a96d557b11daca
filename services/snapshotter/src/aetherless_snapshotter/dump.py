# SPDX-License-Identifier: Apache-2.0
"""Has a host-assisted CRIU dump a golden's tree: in all its namespaces but the user namespace."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

from aetherless_snapshotter import criu

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_snapshotter.sandbox import Sandbox

_CRIU_END_SECONDS = 10.0


def dump(sandbox: Sandbox, binary: Path, images: Path, root_pid: int) -> tuple[criu.Answer, str]:
    """Dump the tree of ``root_pid``, an id inside; returns CRIU's answer and its log.

    The tree stays stopped when it was dumped, and goes on when not.

    Args:
        sandbox: where the tree lives.
        binary: the host's CRIU.
        images: the folder to write to.
        root_pid: the root of the tree.
    """
    images_fd = os.open(images, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    binary_fd = os.open(binary, os.O_RDONLY | os.O_CLOEXEC)
    try:
        answer = _ask(sandbox, binary_fd, images_fd, root_pid)
    finally:
        os.close(binary_fd)
        os.close(images_fd)
    written = images / criu.LOG_FILE
    text = written.read_text(errors="replace") if written.exists() else ""
    written.unlink(missing_ok=True)
    return answer, text


def _ask(sandbox: Sandbox, binary_fd: int, images_fd: int, root_pid: int) -> criu.Answer:
    """Start CRIU, send the dump's request, and see CRIU end."""
    process, connection = sandbox.spawn_host_criu(binary_fd, [images_fd])
    with process, connection:
        try:
            request = criu.dump_request(root_pid, images_fd)
            return criu.exchange(connection, request, criu.DUMP_TIMEOUT)
        except (TimeoutError, EOFError) as error:
            return criu.Answer(success=False, errno=0, words=str(error))
        finally:
            connection.close()
            _end(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    """See a CRIU end whose connection was closed; kill it when it does not.

    SAFETY: ``process`` is our own unreaped child, so its pid is above 1 and can't be another's.
    """
    try:
        process.wait(timeout=_CRIU_END_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(timeout=_CRIU_END_SECONDS)
