# SPDX-License-Identifier: Apache-2.0
"""A table of bad handlers and files: each a typed error with what helps, and nothing left of it."""

from __future__ import annotations

import json
import os
import shutil
import stat
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import function_pb2, registry_service_pb2
from framework.clients import call
from framework.contracts import RPC_TIMEOUT_S
from framework.guard import orchestrator
from framework.mesh import Function, Orchestrator
from framework.processes import in_group, wait_until
from framework.programs import handler

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

ID, BAD = "steady", "bad"
MIB = 1 << 20
# Exit statuses of aetherctl, by class.
INVALID, NOT_FOUND, PRECONDITION, EXHAUSTED, LATE = 3, 4, 6, 8, 12
# For those that are not to become ready; those that get somewhere first; those that end early.
TIMEOUT_MS, ANSWER_MS, GENEROUS_MS = 1500, 5000, 20000
ELF = Path("/bin/true").read_bytes()
GOOD = handler("plain").read_text()


@dataclass(frozen=True)
class Fault:
    """One way to be bad.

    Arguments:
        name: The case's name; of the faulty program's faults, that fault's.
        reason: The reason that the deploy must fail with.
        status: The exit status of ``aetherctl deploy``.
        holds: What values of the metadata must hold, by their keys.
        keys: Further keys of the function's entry.
        make: Makes the handler in an empty folder; the faulty program by default.
        memory_mb: The memory limit.
    """

    name: str
    reason: str
    status: int
    holds: dict[str, str] = field(default_factory=dict)
    keys: dict[str, Any] = field(default_factory=dict)
    make: Callable[[Path], Path] | None = None
    memory_mb: int = 96

    def function(self, folder: Path) -> Function:
        """Return the bad function, its handler in ``folder``."""
        keys = {"timeout_ms": GENEROUS_MS, **self.keys}
        if self.make is None:
            keys["environment"] = {"FAULT": self.name}
        made = self.make(folder) if self.make else handler("bad/faulty")
        return Function(BAD, made, keys=keys, memory_mb=self.memory_mb)


def exits(name: str, how: str, words: str = "faulty: ") -> Fault:
    """Return a handler that ends before it is ready, with its last words."""
    return Fault(name, "HANDLER_EXITED", PRECONDITION, {"status": how, "log": words})


def silent(name: str) -> Fault:
    """Return a handler that never listens on its port."""
    late = {"timeout_ms": TIMEOUT_MS}
    return Fault(name, "READY_TIMEOUT", LATE, {"timeoutMs": str(TIMEOUT_MS)}, late)


def mute(name: str, problem: str) -> Fault:
    """Return a handler that listens and does not answer."""
    late = {"timeout_ms": ANSWER_MS}
    return Fault(name, "WARMUP_FAILED", PRECONDITION, {"problem": problem}, late)


def greedy(name: str, memory_mb: int = 96) -> Fault:
    """Return a handler that uses more memory than it may."""
    holds = {"limitBytes": str(memory_mb * MIB)}
    return Fault(name, "MEMORY_LIMIT_EXCEEDED", EXHAUSTED, holds, memory_mb=memory_mb)


def stuck(name: str, cause: str) -> Fault:
    """Return a handler that can't be checkpointed."""
    return Fault(name, "NOT_CHECKPOINTABLE", PRECONDITION, {"cause": cause})


def unrunnable(name: str, content: bytes, problem: str, file: str = "handler") -> Fault:
    """Return a file that can't be executed."""

    def make(folder: Path) -> Path:
        return write(folder / file, content)

    return Fault(name, "HANDLER_NOT_EXECUTABLE", PRECONDITION, {"problem": problem}, make=make)


def misdeclared(name: str, problem: str, make: Callable[[Path], Path], **keys: Any) -> Fault:
    """Return a function that the command line refuses before it asks anybody."""
    return Fault(name, "CONFIG_INVALID", INVALID, {"problem": problem}, keys, make)


def write(path: Path, content: bytes | str, mode: int = 0o755) -> Path:
    """Write a file and return its path."""
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    path.chmod(mode)
    return path


def good(folder: Path) -> Path:
    """Write a good handler."""
    return write(folder / "handler.py", GOOD)


def with_a_device(folder: Path) -> Path:
    """Put a disk beside the handler."""
    os.mknod(folder / "disk", stat.S_IFBLK | 0o600, os.makedev(7, 0))
    return good(folder)


def with_3_gib(folder: Path) -> Path:
    """Put a sparse file beside the handler."""
    with (folder / "large").open("wb") as file:
        file.truncate(3 << 30)
    return good(folder)


def nested_deeply(folder: Path) -> Path:
    """Put a thousand folders inside each other beside the handler."""
    here = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    for _ in range(1200):
        os.mkdir("d", dir_fd=here)
        below = os.open("d", os.O_RDONLY | os.O_DIRECTORY, dir_fd=here)
        os.close(here)
        here = below
    os.close(here)
    return good(folder)


def without_its_interpreter(folder: Path) -> Path:
    """Put half a virtual environment beside the handler."""
    write(folder / "pyvenv.cfg", b"home = /nonexistent\n\xff\xfe\n")
    return write(folder / "handler.py", GOOD, 0o644)


def patched(at: int, replacement: bytes) -> bytes:
    """Return a program with some bytes changed."""
    return ELF[:at] + replacement + ELF[at + len(replacement) :]


def folder_as_handler(folder: Path) -> Path:
    """Make a folder that has a handler's name."""
    (folder / "handler.py").mkdir()
    return folder / "handler.py"


def fifo_as_handler(folder: Path) -> Path:
    """Make a fifo that has a handler's name."""
    os.mkfifo(folder / "handler.py")
    return folder / "handler.py"


def link_to(target: str) -> Callable[[Path], Path]:
    """Return a maker of a symbolic link that has a handler's name."""

    def make(folder: Path) -> Path:
        (folder / "handler.py").symlink_to(target)
        return folder / "handler.py"

    return make


FAULTS = (
    # It ends before it is ready.
    exits("ends_well", "status 0"),
    exits("raises", "status 1", "RuntimeError: no configuration"),
    exits("crashes", "SIGSEGV", ""),
    exits("kills_itself", "SIGKILL", ""),
    exits("daemonizes", "status 0", "gone into the background"),
    exits("listens_and_ends", "status 1", "second thoughts"),
    exits("ends_in_the_warm_up", "status 9", "cannot serve this"),
    exits("ends_after_the_warm_up", "status 5", "that is enough"),
    exits("ends_with_many_words", "status 1", "faulty: that was all"),
    exits("fills_folders", "status 7", "No space left on device"),
    exits("makes_files", "status 1", "No space left on device"),
    Fault(
        "a syntax error",
        "HANDLER_EXITED",
        PRECONDITION,
        {"log": "SyntaxError"},
        make=lambda folder: write(folder / "handler.py", "def (:\n"),
    ),
    Fault(
        "half a program",
        "HANDLER_EXITED",
        PRECONDITION,
        {"status": "SIG"},
        make=lambda folder: write(folder / "handler", ELF[: len(ELF) // 2]),
    ),
    # It can't be reached.
    silent("waits"),
    silent("listens_elsewhere"),
    silent("listens_for_datagrams"),
    silent("listens_on_a_path"),
    silent("says_ready_only"),
    silent("stops_itself"),
    silent("ignores_sigterm"),
    # It does not answer.
    mute("accepts_only", "timed out"),
    mute("hangs_up", "empty answer"),
    mute("speaks_another_protocol", "220 mail.example"),
    mute("drips", "head did not end"),
    # It wants too much.
    greedy("eat"),
    greedy("eats_in_a_child"),
    greedy("eats_in_the_warm_up"),
    greedy("shares_memory"),
    greedy("anything in 1 MiB", 1),
    Fault(
        "bombs",
        "PROCESS_LIMIT_EXCEEDED",
        EXHAUSTED,
        {"limit": "1024"},
        {"timeout_ms": ANSWER_MS},
        memory_mb=1024,
    ),
    Fault("starts_threads", "PROCESS_LIMIT_EXCEEDED", EXHAUSTED, {"log": "can't start new thread"}),
    # It can't be checkpointed.
    stuck("holds_a_ring", "io_uring"),
    stuck("is_traced", "is traced"),
    stuck("leaves_an_orphan", "python3 into the background"),
    stuck("shares_by_system_v", "1 shared memory"),
    stuck("uses_a_semaphore", "1 semaphores"),
    stuck("holds_mptcp", "MPTCP"),
    stuck("handles_page_faults", "userfaultfd"),
    stuck("speaks_to_the_host", "AF_VSOCK"),
    stuck("measures", "perf event"),
    # It can't be executed.
    unrunnable("an empty file", b"", "Exec format error"),
    unrunnable("a head of a program", ELF[:200], "Exec format error"),
    unrunnable("a program of another processor", patched(18, b"\xb7\x00"), "Exec format error"),
    unrunnable("a program without its loader", ELF.replace(b"/lib64/ld", b"/lib65/ld"), "No such"),
    unrunnable("no program", b"\x00\x01\x02" * 1000, "Exec format error"),
    unrunnable("an interpreter that is not there", b"#!/nonexistent/python\n", "does not exist"),
    unrunnable("an interpreter without path", b"#!python3\n", "No such file"),
    unrunnable("a folder as interpreter", b"#!/usr/bin\n", "does not exist"),
    unrunnable("a text as interpreter", b"#!/etc/passwd\n", "Permission denied"),
    Fault(
        "half a virtual environment",
        "HANDLER_NOT_EXECUTABLE",
        PRECONDITION,
        {"problem": "bin/python3 does not exist"},
        make=without_its_interpreter,
    ),
    # Its folder can't be copied.
    Fault("a device", "ROOT_NOT_COPYABLE", PRECONDITION, {"path": "disk"}, make=with_a_device),
    Fault("3 GiB", "ROOT_TOO_LARGE", PRECONDITION, {"limitBytes": "21474"}, make=with_3_gib),
    Fault(
        "a deep folder", "ROOT_UNREADABLE", PRECONDITION, {"problem": "deep"}, make=nested_deeply
    ),
    # It asks for what there is not, or must not be.
    Fault(
        "a mount over everything",
        "INVALID_ARGUMENT",
        INVALID,
        {"problem": "/ would hide"},
        {"mounts": ["/"]},
        good,
    ),
    Fault(
        "a mount over /proc",
        "INVALID_ARGUMENT",
        INVALID,
        {"problem": "/proc would hide"},
        {"mounts": ["/proc"]},
        good,
    ),
    misdeclared("a mount of nothing", "/nonexistent", good, mounts=["/nonexistent"]),
    misdeclared("a large environment", "131072 bytes", good, environment={"A": "x" * 200_000}),
    misdeclared("the host as root", "the host's own", good, root="/"),
    misdeclared("a root elsewhere", "not below", good, root="/usr/share"),
    misdeclared("a folder", "no regular file", folder_as_handler),
    misdeclared("a fifo", "no regular file", fifo_as_handler),
    misdeclared("a link to nothing", "no such file", link_to("/nonexistent")),
    misdeclared("a link to itself", "no such file", link_to("handler.py")),
    misdeclared("a name too long", "too long", lambda folder: folder / ("x" * 300 + ".py")),
    misdeclared(
        "no permission", "not executable", lambda folder: write(folder / "h", "#!/bin/sh\n", 0o644)
    ),
)


@pytest.fixture(scope="module")
def mesh() -> Iterator[Orchestrator]:
    """Serve one function, beside which others fail."""
    with orchestrator(Function(ID, handler("plain"))) as running:
        assert call(running.functions[0].port).ok
        yield running


@pytest.fixture
def folder(mesh: Orchestrator) -> Iterator[Path]:
    """Return an empty folder of the orchestrator's."""
    place = mesh.home / "bad"
    place.mkdir()
    yield place
    remove_deep(place)


def remove_deep(place: Path) -> None:
    """Remove a folder, however deep: its folders are moved up until none is deep."""
    while (place / "d" / "d").exists():
        (place / "d").rename(place / "old")
        (place / "old" / "d").rename(place / "d")
        (place / "old").rmdir()
    shutil.rmtree(place)


def deploy(mesh: Orchestrator, function: Function) -> tuple[int, dict[str, Any]]:
    """Deploy a function beside the steady one; return the exit status and the error."""
    file = mesh.home / "more.yaml"
    file.write_text(json.dumps({"functions": [function.entry()]}))
    done = mesh.ctl("-o", "json", "deploy", str(file))
    error: dict[str, Any] = json.loads(done.err)["error"] if done.status else {}
    return done.status, error


def assert_nothing_left(mesh: Orchestrator, function: Function) -> None:
    """Check that no instance, process, snapshot, copy or id range is left, and no route."""
    wait_until(lambda: mesh.contracts.instances(BAD) == [], "no instance of it is left")
    assert [path.name for path in mesh.settings.snapshot_root.glob(f"*{BAD}-r*")] == []
    steady = mesh.contracts.instance_id(ID)
    wait_until(lambda: in_group(mesh.group) == in_group(mesh.group / steady), "no process is left")
    assert call(function.port).error == "ECONNREFUSED"
    left = [p.relative_to(mesh.settings.state_dir) for p in mesh.settings.state_dir.rglob(BAD)]
    assert left == []
    ranges = mesh.settings.state_dir.rglob("*id*ranges*.json")
    assert [path for path in ranges if BAD in json.loads(path.read_text())] == []


@pytest.mark.parametrize("fault", FAULTS, ids=[fault.name.replace(" ", "-") for fault in FAULTS])
def test_a_bad_function(mesh: Orchestrator, folder: Path, fault: Fault) -> None:
    """Its deploy fails with its reason; what the reason promises is there; all else is gone."""
    function = fault.function(folder)
    status, error = deploy(mesh, function)
    assert (error.get("reason"), status) == (fault.reason, fault.status), error
    assert error["remedy"]
    for key, words in fault.holds.items():
        assert words in error["metadata"][key], error
    if error["domain"] == "snapshotter.aetherless":
        assert error["metadata"]["function"] == BAD
        deployed = mesh.contracts.function(BAD)
        assert deployed.deploy_state == function_pb2.DEPLOY_STATE_FAILED
        assert deployed.deploy_error.reason == fault.reason
        mesh.must("delete", BAD)
    assert_nothing_left(mesh, function)
    assert call(mesh.functions[0].port).ok


def test_a_handler_that_goes_away(mesh: Orchestrator, folder: Path) -> None:
    """Declared over gRPC, so that nobody looked: the service that needs the file says so."""
    spec = function_pb2.FunctionSpec(
        function_id=BAD,
        handler_path=str(folder / "gone.py"),
        memory_limit_mb=96,
        trigger_port=Function(BAD, folder).port,
        warmup_kind=function_pb2.WARMUP_KIND_HTTP,
    )
    spec.timeout.FromMilliseconds(TIMEOUT_MS)
    spec.restore_timeout.FromMilliseconds(TIMEOUT_MS)
    request = registry_service_pb2.ApplyConfigRequest(functions=[spec])
    mesh.contracts.stub("registry").ApplyConfig(request, timeout=RPC_TIMEOUT_S)
    wait_until(lambda: mesh.contracts.deploy_state(BAD) == "FAILED", "it failed")
    assert mesh.contracts.function(BAD).deploy_error.reason == "HANDLER_NOT_FOUND"
    mesh.must("delete", BAD)
    assert_nothing_left(mesh, Function(BAD, folder, port=spec.trigger_port))


def test_a_good_handler_after_all(mesh: Orchestrator, folder: Path) -> None:
    """After all of that a function deploys, answers and goes as ever."""
    function = Function(BAD, good(folder))
    status, error = deploy(mesh, function)
    assert status == 0, error
    assert call(function.port).ok
    mesh.must("delete", BAD)
    assert_nothing_left(mesh, function)
