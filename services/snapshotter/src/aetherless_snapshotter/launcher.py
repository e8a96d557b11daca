# SPDX-License-Identifier: Apache-2.0
"""Launches inits: writes the specification of ``init/README.md``, hands the descriptors over."""

from __future__ import annotations

import os
import subprocess
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from aetherless_common.cgroups import cgroup_of
from aetherless_common.proc import start_ticks
from aetherless_snapshotter import control
from aetherless_snapshotter.cgroup import INIT, InstanceGroup
from aetherless_snapshotter.control import write_line
from aetherless_snapshotter.sandbox_errors import SandboxError
from aetherless_snapshotter.sandbox_spec import FUNCTION_UID, LOG_TARGET, Bind

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_snapshotter.cgroup import GroupDescriptors
    from aetherless_snapshotter.sandbox_spec import SandboxSpec, Tree

LAST_WORDS = "last-words"
_LAUNCH_SECONDS = 20.0
_SYSTEM_FOLDERS = ("/usr", "/opt")
_LINKED_FOLDERS = ("/bin", "/sbin", "/lib", "/lib32", "/lib64", "/libx32")
_DEVICES = ("null", "zero", "full", "random", "urandom")


@dataclass(frozen=True)
class Launched:
    """A sandbox that stands: its init's pid, start time and pidfd."""

    pid: int
    start_time: int
    pidfd: int


def launch(spec: SandboxSpec, group: InstanceGroup) -> Launched:
    """Make the sandbox in its groups, which exist.

    Raises:
        SandboxError: a step failed; its groups and folder are the caller's to remove.
    """
    flags = os.O_WRONLY | os.O_APPEND | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC
    _make_log(spec)
    words = os.open(spec.folder / LAST_WORDS, flags, 0o600)
    try:
        with control.listen(spec.folder) as listener, group.open() as groups:
            handed = [listener.fileno(), words, *groups.all()]
            lines = _specification(spec, groups, listener.fileno(), words)
            answer = _run(spec, "\n".join(lines), handed)
    finally:
        os.close(words)
    return _identify(spec, answer)


def _make_log(spec: SandboxSpec) -> None:
    """Make the log when it is missing, the function's own."""
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with suppress(FileExistsError):
        log = os.open(spec.log_file, flags, 0o600)
        owner = spec.uid_base + FUNCTION_UID
        os.fchown(log, owner, owner)
        os.close(log)


def _run(spec: SandboxSpec, text: str, handed: list[int]) -> control.Line:
    try:
        done = subprocess.run(
            [spec.init_binary, "launch"],
            input=text.encode(),
            stdout=subprocess.PIPE,
            pass_fds=handed,
            timeout=_LAUNCH_SECONDS,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise SandboxError(spec.instance_id, "launch", str(error)) from error
    said = done.stdout.decode().strip()
    answer = control.read_line(f"launched {said}" if said.startswith("pid=") else said)
    if answer.verb == "launched":
        return answer
    step = answer.values.get("step", "launch")
    detail = answer.values.get("detail", f"aether-init ended with {done.returncode}")
    raise SandboxError(spec.instance_id, step, detail, answer.number("errno"))


def _identify(spec: SandboxSpec, answer: control.Line) -> Launched:
    """Take hold of the init by more than its number.

    SAFETY: a pid above 1 whose process, once the pidfd is held, is in the sandbox's own group.
    """
    pid = answer.number("pid")
    try:
        if pid <= 1:
            raise ProcessLookupError(pid)
        pidfd = os.pidfd_open(pid)
        try:
            if not cgroup_of(pid).endswith(f"/{spec.cgroup}/{spec.instance_id}/{INIT}"):
                raise ProcessLookupError(pid)
            return Launched(pid, start_ticks(pid), pidfd)
        except OSError:
            os.close(pidfd)
            raise
    except OSError as error:
        words = (spec.folder / LAST_WORDS).read_text(errors="replace").strip()
        raise SandboxError(spec.instance_id, "launch", words or "its init died at once") from error


def _specification(
    spec: SandboxSpec, groups: GroupDescriptors, listener: int, words: int
) -> Iterator[str]:
    """Yield the lines of the specification, the outer mounts before the inner ones."""
    yield write_line("control", fd=listener)
    yield write_line("words", fd=words)
    for descriptor in groups.joins:
        yield write_line("join", fd=descriptor)
    for descriptor in groups.tree_joins:
        yield write_line("tree-join", fd=descriptor)
    yield write_line("tree-kill", fd=groups.kill)
    if groups.oom_event is not None:
        yield write_line("oom-event", fd=groups.oom_event)
    if groups.oom_counter is not None:
        yield write_line("oom-counter", fd=groups.oom_counter)
    yield write_line("hostname", name=spec.hostname)
    yield write_line("ids", base=spec.uid_base)
    yield write_line("layers", size=spec.memory_limit // 2)
    yield from _binds(spec)
    for held in sorted(spec.held, key=lambda held: held.inode):
        yield write_line("held", tag=held.tag, path=held.path, inode=held.inode)
    for tree in sorted(spec.all_trees(), key=lambda tree: tree.target.count("/")):
        yield from _tree(tree)


def _binds(spec: SandboxSpec) -> Iterator[str]:
    system = [Bind(Path(path), path) for path in _SYSTEM_FOLDERS if Path(path).is_dir()]
    for name in _LINKED_FOLDERS:
        path = Path(name)
        if path.is_symlink():
            yield write_line("link", path=name, to=path.readlink())
        elif path.is_dir():
            system.append(Bind(path, name))
    ours = [
        Bind(spec.etc_folder, "/etc"),
        Bind(spec.criu_folder, "/criu"),
        Bind(spec.log_file, LOG_TARGET, writable=True, executable=False),
    ]
    trees = [tree.target for tree in spec.all_trees()]
    for bind in sorted([*system, *ours, *spec.binds], key=lambda bind: bind.target.count("/")):
        flags = "" if bind.writable else "r"
        flags += "" if bind.executable else "x"
        flags += "t" if any(Path(bind.target).is_relative_to(tree) for tree in trees) else ""
        yield write_line("bind", source=bind.source, target=bind.target, flags=flags)
    for name in _DEVICES:
        yield write_line("bind", source=f"/dev/{name}", target=f"/dev/{name}", flags="d")


def _tree(tree: Tree) -> Iterator[str]:
    yield write_line(
        "tree", tag=tree.tag, target=tree.target, mode=f"{tree.mode:o}", owner=tree.owner
    )
    for lower in tree.lowers:
        yield write_line("lower", tag=tree.tag, source=lower)
