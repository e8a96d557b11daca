# SPDX-License-Identifier: Apache-2.0
"""What a workload becomes inside a sandbox: command, environment, and the host's folders it needs.

The interpreter of a ``.py`` handler is chosen once, by rules that do not depend on the service's
own PATH: an executable handler with an absolute shebang follows it; else a ``pyvenv.cfg`` beside
the handler names its virtual environment; else Debian's ``/usr/bin/python3``. Any other handler is
executed, and when it is a script its shebang is followed the same way.
"""

from __future__ import annotations

import os
import re
import stat
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_snapshotter import errors
from aetherless_snapshotter.sandbox_spec import (
    CHANNEL_SOCKET,
    CHANNEL_TARGET,
    FUNCTION_UID,
    HANDLER_SOCKET,
    HOME,
    ROOT_UID,
    standard_trees,
)

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

DEFAULT_PYTHON = Path("/usr/bin/python3")
#: Trees of the host that every sandbox has, so nothing below them needs a bind of its own.
SYSTEM_TREES = tuple(map(Path, ("/usr", "/bin", "/sbin", "/lib", "/lib32", "/lib64", "/opt")))
#: Where a sandbox has folders of its own.
OWN_PLACES = (
    *map(Path, ("/proc", "/dev", "/etc", "/criu", "/log", "/snap", "/layers", "/lowers")),
    Path(CHANNEL_TARGET),
    *(Path(tree.target) for tree in standard_trees(FUNCTION_UID)),
)
RESERVED_VARIABLES = frozenset(
    {"AETHER_CHANNEL", "AETHER_SOCKET", "AETHER_TRIGGER_PORT", "AETHER_FUNCTION_ID", "PORT"}
)
_SHEBANG_BYTES = 256
_FUNCTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}(\.check[0-9a-f]{6})?\Z")
_VARIABLE = re.compile(r"[^=\x00]+\Z")
_MAX_MEMORY = 16384 << 20
_MAX_PORT = 65535
_MAX_LINKS = 40
_MAX_VARIABLES = 1024
#: The kernel's MAX_ARG_STRLEN, and what fits into one command to an init.
_MAX_ENVIRONMENT = 128 << 10


@dataclass(frozen=True)
class Program:
    """A handler as it is started: all paths are as the sandbox sees them."""

    command: tuple[str, ...]
    environment: dict[str, str]
    folder: str
    #: Folders or files of the host to bind read-only at their own paths.
    trees: tuple[Path, ...]

    def encode(self) -> dict[str, Any]:
        """Return the program in types that JSON has."""
        return {**asdict(self), "trees": [str(tree) for tree in self.trees]}

    @classmethod
    def decode(cls, raw: dict[str, Any]) -> Program:
        """Return the program that ``encode`` gave."""
        trees = tuple(Path(tree) for tree in raw["trees"])
        return cls(tuple(raw["command"]), dict(raw["environment"]), raw["folder"], trees)


def is_container(workload: instance_pb2.Workload) -> bool:
    """Tell whether the program runs as uid 0 of its sandbox with a container's capabilities."""
    return workload.capabilities == instance_pb2.CAPABILITY_SET_CONTAINER


def user_of(workload: instance_pb2.Workload) -> int:
    """Return the uid, inside, that the program runs as and that its files belong to."""
    return ROOT_UID if is_container(workload) else FUNCTION_UID


def validate(workload: instance_pb2.Workload) -> None:
    """Refuse a workload with a field that is missing or out of range.

    Raises:
        InvalidArgument: INVALID_ARGUMENT with the field and the problem.
    """
    for field, problem in _problems(workload):
        raise errors.invalid_argument(field, problem)


def _problems(workload: instance_pb2.Workload) -> Iterable[tuple[str, str]]:
    """Yield each field of a workload that is wrong, with what is wrong."""
    if not _FUNCTION_ID.match(workload.function_id):
        problem = "must be 1 to 64 characters of A-Z a-z 0-9 _ -, and the suffix of a check"
        yield "workload.function_id", problem
    if workload.revision < 1:
        yield "workload.revision", "must be at least 1"
    if not workload.handler_path.startswith("/"):
        yield "workload.handler_path", "must be an absolute path"
    if workload.root_path and not workload.root_path.startswith("/"):
        yield "workload.root_path", "must be an absolute path or empty"
    if not 0 < workload.memory_limit_bytes <= _MAX_MEMORY:
        yield "workload.memory_limit_bytes", f"must be 1 to {_MAX_MEMORY}"
    yield from _port_problems(workload)
    for name in ("timeout", "restore_timeout"):
        if getattr(workload, name).ToNanoseconds() <= 0:
            yield f"workload.{name}", "must be above zero"
    if workload.capabilities not in instance_pb2.CapabilitySet.values():
        yield "workload.capabilities", "must be NONE or CONTAINER"
    yield from _environment_problems(workload.environment)
    yield from (
        ("workload.mounts", f"{path} is not an absolute path")
        for path in workload.mounts
        if not path.startswith("/")
    )


def _port_problems(workload: instance_pb2.Workload) -> Iterable[tuple[str, str]]:
    """Yield what is wrong with where it listens; a program with a channel need not listen."""
    if workload.trigger_port or not workload.ipc:
        if not 0 < workload.trigger_port <= _MAX_PORT:
            yield "workload.trigger_port", f"must be 1 to {_MAX_PORT}, or 0 with ipc"
    elif workload.warmup.kind != instance_pb2.WARMUP_KIND_NONE:
        yield "workload.warmup", "must be NONE without a trigger_port: there is nothing to ask"


def _environment_problems(environment: Mapping[str, str]) -> Iterable[tuple[str, str]]:
    """Yield what is wrong with the variables a user declared."""
    for name, value in environment.items():
        if name in RESERVED_VARIABLES:
            yield "workload.environment", f"{name} is set by the sandbox"
        if not _VARIABLE.match(name) or "\x00" in value:
            yield "workload.environment", f"{name!r} is not a variable that a program can get"
    size = sum(len(f"{name}={value}".encode()) + 1 for name, value in environment.items())
    if len(environment) > _MAX_VARIABLES or size > _MAX_ENVIRONMENT:
        limits = f"{_MAX_VARIABLES} variables and {_MAX_ENVIRONMENT} bytes"
        yield "workload.environment", f"must hold at most {limits}"


def is_check(function_id: str) -> bool:
    """Tell whether an id is of a check, of which nothing may be left, and not of a function."""
    return "." in function_id


def resolve(workload: instance_pb2.Workload) -> Program:
    """Decide how the handler is started and which of the host's folders it needs.

    Raises:
        NotFound: HANDLER_NOT_FOUND, no such file (or its interpreter).
        InvalidArgument: INVALID_ARGUMENT, a mount that does not exist or hides the sandbox's own.
        FailedPrecondition: HANDLER_NOT_EXECUTABLE, the file can't be run.
    """
    handler = Path(workload.handler_path)
    command = _command(handler)
    for mount in workload.mounts:
        _check_mount(Path(mount))
    roots = _roots(workload)
    trees = [tree for tree in _interpreter_trees(command[0]) if not _covered(tree, roots)]
    trees += [Path(mount) for mount in workload.mounts]
    folder = str(handler.parent) if workload.root_path else HOME
    return Program(tuple(command), _environment(workload), folder, _outermost(trees))


def _check_mount(mount: Path) -> None:
    """Refuse a folder of the host that is not there, or that would hide what the sandbox has."""
    if not mount.exists():
        raise errors.invalid_argument("workload.mounts", f"{mount} does not exist")
    path = Path(os.path.normpath(mount))
    if Path("/proc") in path.parents or any(
        path == place or path in place.parents for place in OWN_PLACES
    ):
        problem = f"{mount} would hide what the sandbox has there itself"
        raise errors.invalid_argument("workload.mounts", problem)


def _roots(workload: instance_pb2.Workload) -> tuple[Path, ...]:
    """Return the trees that are in the sandbox anyway."""
    own = (Path(workload.root_path),) if workload.root_path else ()
    return (*SYSTEM_TREES, *own)


def _command(handler: Path) -> list[str]:
    """Return the command that runs ``handler``, interpreter first."""
    try:
        status = handler.stat()
    except (FileNotFoundError, NotADirectoryError):
        raise errors.handler_not_found(str(handler)) from None
    if not stat.S_ISREG(status.st_mode):
        raise errors.handler_not_executable(str(handler), "it is not a regular file")
    executable = bool(status.st_mode & 0o111)
    shebang = _shebang(handler) if executable else []
    if shebang:
        return [*_checked(handler, shebang), str(handler)]
    if handler.suffix == ".py":
        return [*_checked(handler, [str(_python_beside(handler))]), str(handler)]
    if not executable:
        raise errors.handler_not_executable(str(handler), "it has no execute permission")
    return [str(handler)]


def _checked(handler: Path, command: list[str]) -> list[str]:
    """Return ``command`` when its program exists."""
    if not Path(command[0]).is_file():
        raise errors.handler_not_executable(
            str(handler), f"its interpreter {command[0]} does not exist"
        )
    return command


def _shebang(handler: Path) -> list[str]:
    """Return the interpreter and its one argument, as the kernel reads them; empty when none."""
    with handler.open("rb") as file:
        head = file.read(_SHEBANG_BYTES)
    if not head.startswith(b"#!"):
        return []
    line = head[2:].split(b"\n", 1)[0].strip()
    parts = os.fsdecode(line).split(None, 1)
    return parts if parts and parts[0].startswith("/") else []


def _python_beside(handler: Path) -> Path:
    """Return the interpreter of the virtual environment beside ``handler``, else Debian's."""
    if (handler.parent / "pyvenv.cfg").is_file():
        return handler.parent / "bin" / "python3"
    return DEFAULT_PYTHON


def _interpreter_trees(program: str) -> list[Path]:
    """Return the prefixes that an interpreter needs: its own, and those its links lead through."""
    trees: list[Path] = []
    for path in _links(Path(program)):
        prefix = _prefix(path)
        trees.append(prefix)
        trees += _virtual_environment_home(prefix)
    return trees


def _links(path: Path) -> list[Path]:
    """Return ``path`` and each path that its chain of symbolic links leads to."""
    chain = [path]
    while path.is_symlink() and len(chain) < _MAX_LINKS:
        path = Path(os.path.normpath(path.parent / path.readlink()))
        chain.append(path)
    return [*chain, path.resolve()]


def _prefix(program: Path) -> Path:
    """Return the installation that ``program`` belongs to, or the file itself.

    A prefix that is a home or a system folder would bring things that are none of the
    function's business, so there the program comes alone.
    """
    if program.parent.name != "bin":
        return program
    prefix = program.parent.parent
    return program if is_shared_folder(prefix) else prefix


def _virtual_environment_home(prefix: Path) -> list[Path]:
    """Return the prefix that a virtual environment's ``home`` key points into."""
    configuration = prefix / "pyvenv.cfg"
    if not configuration.is_file():
        return []
    for line in configuration.read_text(encoding="utf-8", errors="replace").splitlines():
        key, _, value = line.partition("=")
        if key.strip().lower() == "home":
            return [_prefix(link) for link in _links(Path(value.strip()) / "python3")]
    return []


def is_shared_folder(path: Path) -> bool:
    """Tell whether many things share ``path``: /, /tmp, a home, a system folder."""
    homes = path.parent in (Path("/home"), Path("/Users"))
    top = path == Path("/") or path.parent == Path("/")
    return top or homes or path in (Path("/var/tmp"), Path("/usr/local"), Path.home())  # noqa: S108


def _covered(tree: Path, roots: Iterable[Path]) -> bool:
    """Tell whether one of ``roots`` already holds ``tree``."""
    return any(tree == root or root in tree.parents for root in roots)


def _outermost(trees: list[Path]) -> tuple[Path, ...]:
    """Return ``trees`` without repetitions and without those inside another one."""
    unique = sorted(set(trees))
    return tuple(t for t in unique if not _covered(t, [other for other in unique if other != t]))


def _environment(workload: instance_pb2.Workload) -> dict[str, str]:
    """Return the handler's whole environment: nothing of the service's own leaks into it."""
    defaults = {
        "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
        "HOME": HOME,
        "LANG": "C.UTF-8",
        "UV_USE_IO_URING": "0",  # io_uring can't be checkpointed
        "GODEBUG": "multipathtcp=0",  # nor can the MPTCP listeners of Go 1.24 and later
    }
    fixed = {
        "AETHER_SOCKET": HANDLER_SOCKET,
        "AETHER_FUNCTION_ID": workload.function_id.partition(".")[0],
    }
    if workload.trigger_port:
        fixed |= dict.fromkeys(("AETHER_TRIGGER_PORT", "PORT"), str(workload.trigger_port))
    if workload.ipc:
        fixed["AETHER_CHANNEL"] = CHANNEL_SOCKET
    return {**defaults, **workload.environment, **fixed}
