# SPDX-License-Identifier: Apache-2.0
"""A sandbox on a real kernel: made, driven, lost and adopted, deleted."""

from __future__ import annotations

import json
import signal
import socket
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless_common.cgroups import cgroup_v1_mount, cgroup_v2_mount
from aetherless_common.proc import start_ticks
from aetherless_snapshotter.sandbox import Sandbox, delete_all, delete_folder
from aetherless_snapshotter.sandbox_errors import (
    CommandTimeoutError,
    SandboxError,
    SandboxGoneError,
)
from aetherless_snapshotter.sandbox_events import (
    Armed,
    RootExited,
    SandboxEnded,
    SandboxState,
    Woke,
)
from framework.sandbox_world import PATH, Events, SandboxWorld, run

if TYPE_CHECKING:
    from aetherless.snapshotter.v1 import instance_pb2

pytestmark = pytest.mark.root


def groups(place: SandboxWorld, name: str = "") -> list[Path]:
    """Return where the control groups of an instance, or of the orchestrator, exist."""
    mounts = (cgroup_v2_mount(), *map(cgroup_v1_mount, ("memory", "pids", "cpu")))
    parent = place.place.settings.cgroup_name
    return [mount / parent / name for mount in mounts if mount and (mount / parent / name).exists()]


def kill(sandbox: Sandbox) -> None:
    """End the init from outside."""
    # SAFETY: one process, by its descriptor
    signal.pidfd_send_signal(sandbox.pidfd, signal.SIGKILL)


# Making and deleting


def test_what_is_on_disk_and_in_the_kernel(
    place: SandboxWorld, made: tuple[Sandbox, Events]
) -> None:
    """The record names the init; the init is in its group and in namespaces of its own."""
    sandbox, _ = made
    record = json.loads((sandbox.folder / "instance.json").read_text())
    assert record["pid"] == sandbox.init_pid > 1
    assert record["start_time"] == sandbox.start_time == start_ticks(sandbox.init_pid)
    assert sandbox.folder.stat().st_mode & 0o777 == 0o700
    for group in groups(place, "one"):
        assert str(sandbox.init_pid) in (group / "init" / "cgroup.procs").read_text().split()
    for kind in ("user", "net", "pid", "mnt", "ipc", "uts"):
        inside = Path(f"/proc/{sandbox.init_pid}/ns/{kind}").stat()
        assert inside.st_ino != Path(f"/proc/self/ns/{kind}").stat().st_ino
    assert sandbox.status().state is SandboxState.IDLE


def test_delete_leaves_nothing(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """No process, control group or folder stays; deleting twice is no error, and says nothing."""
    sandbox, events = place.create("one", workload)
    sandbox.spawn(["/bin/sleep", "100"], PATH, "/")
    pid, open_before = sandbox.init_pid, len(list(Path("/proc/self/fd").iterdir()))
    sandbox.delete()
    sandbox.delete()
    with pytest.raises(ProcessLookupError):
        start_ticks(pid)
    assert not sandbox.folder.exists()
    assert not groups(place, "one")
    assert not events.seen
    assert len(list(Path("/proc/self/fd").iterdir())) < open_before
    assert not [one for one in threading.enumerate() if one.name.endswith("-one")]


def test_a_failed_create_leaves_nothing(
    place: SandboxWorld, workload: instance_pb2.Workload, tmp_path: Path
) -> None:
    """The step that failed is told with its error number; no group and no folder stays."""
    built = place.builder.build("one", workload, "")
    broken = built.spec.__class__(**{**vars(built.spec), "etc_folder": tmp_path / "none"})
    with pytest.raises(SandboxError) as caught:
        Sandbox.create(broken, lambda _: None)
    assert (caught.value.step, caught.value.errno) == ("bind", 2)
    assert not broken.folder.exists()
    assert not groups(place, "one")


def test_delete_folder_of_a_living_one(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """What an earlier process left is ended and removed by its folder alone."""
    sandbox, events = place.create("one", workload)
    delete_folder(sandbox.folder, place.place.settings.cgroup_name)
    events.wait(SandboxEnded)
    assert not sandbox.folder.exists()
    assert not groups(place, "one")
    delete_folder(sandbox.folder, place.place.settings.cgroup_name)
    sandbox.close()


def test_delete_all(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """Everything of the orchestrator goes, the living and the half made; twice is no error."""
    sandboxes = [place.create(name, workload)[0] for name in ("one", "two")]
    settings = place.place.settings
    (settings.runtime_dir / "instances" / "half").mkdir()
    for _ in range(2):
        delete_all(settings.runtime_dir, settings.cgroup_name)
        assert not list((settings.runtime_dir / "instances").glob("*"))
        assert not groups(place)
    for sandbox in sandboxes:
        sandbox.close()


# Losing, adopting


def test_the_end_of_the_init_is_told(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """A killed init ends the sandbox: one event, and typed errors from then on."""
    sandbox, events = place.create("one", workload)
    kill(sandbox)
    assert events.wait(SandboxEnded).last_words == ""
    with pytest.raises(SandboxGoneError):
        sandbox.status()
    with pytest.raises(SandboxGoneError):
        Sandbox.adopt(sandbox.folder, lambda _: None)
    sandbox.delete()
    assert not groups(place, "one")


def test_adoption(made: tuple[Sandbox, Events], place: SandboxWorld) -> None:
    """Another connection finds the sandbox as it is, with the program that runs in it."""
    first, early = made
    first.spawn(["/bin/sleep", "100"], PATH, "/")
    first.close()
    events = Events()
    second = Sandbox.adopt(first.folder, events.take)
    assert (second.init_pid, second.start_time) == (first.init_pid, first.start_time)
    assert second.status().state is SandboxState.STARTED
    second.kill_tree()
    assert run(second, events, "exit 4") == 4
    assert not early.of(RootExited)
    second.delete()


def test_another_process_of_the_same_number_is_not_adopted(made: tuple[Sandbox, Events]) -> None:
    """A record whose pid was given to another process leads to nothing."""
    sandbox, _ = made
    path = sandbox.folder / "instance.json"
    whole = path.read_text()
    for change in ({"start_time": 1}, {"pid": 1}, {"pid": 0}, {"pid": -1}):
        path.write_text(json.dumps({**json.loads(whole), **change}))
        with pytest.raises(SandboxGoneError):
            Sandbox.adopt(sandbox.folder, lambda _: None)
    path.write_text("{")
    with pytest.raises(SandboxGoneError):
        Sandbox.adopt(sandbox.folder, lambda _: None)
    path.write_text(whole)


def test_a_dropped_connection_is_made_anew(made: tuple[Sandbox, Events]) -> None:
    """Commands and reports go on when the connection broke while the init lives."""
    sandbox, events = made
    for _ in range(3):
        sandbox._control._socket.shutdown(socket.SHUT_RDWR)
        until = threading.Event()
        while not until.wait(0.01):
            try:
                sandbox.status()
                break
            except SandboxError:
                continue
    assert run(sandbox, events, "exit 5") == 5
    assert not events.of(SandboxEnded)


def test_an_init_that_hangs_is_told_and_comes_back(made: tuple[Sandbox, Events]) -> None:
    """No answer in time is an error of its own, and a late answer is not taken for another's."""
    sandbox, _ = made
    # SAFETY: one process, by its descriptor
    signal.pidfd_send_signal(sandbox.pidfd, signal.SIGSTOP)
    try:
        with pytest.raises(CommandTimeoutError):
            sandbox._control.ask("status", timeout=0.2)
    finally:
        signal.pidfd_send_signal(sandbox.pidfd, signal.SIGCONT)
    assert sandbox.quiesce(8080).inbound == 0
    assert sandbox.status().state is SandboxState.IDLE


def test_a_failing_receiver_misses_nothing_that_follows(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """An event whose receiver raises does not end the events."""
    built = place.builder.build("one", workload, "")
    events = Events()

    def take(event: object) -> None:
        events.take(event)  # type: ignore[arg-type]
        raise RuntimeError("receiver")

    sandbox = Sandbox.create(built.spec, take)
    assert run(sandbox, events, "exit 1") == 1
    assert run(sandbox, events, "exit 2") == 2
    sandbox.delete()


def test_adoption_of_an_armed_one(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """Wakes while nobody was connected are kept, and the next are told."""
    folder = Path(workload.root_path)
    (folder / "handler.py").write_text(
        "import http.server, os\n"
        "handler = http.server.SimpleHTTPRequestHandler\n"
        "http.server.HTTPServer(('0.0.0.0', int(os.environ['PORT'])), handler).serve_forever()\n"
    )
    place.checkpoint(workload)
    first, _ = place.clone(workload)
    first.close()
    assert place.burst(3)[0][0] == 200
    events = Events()
    second = Sandbox.adopt(first.folder, events.take)
    assert second.status().state is SandboxState.RUNNING
    assert [(wake.sequence, wake.ok) for wake in second.wakes_since(0)] == [(1, True)]
    assert second.wakes_since(1) == []
    second.evict()
    events.wait(Armed)
    assert place.burst(1)[0][0] == 200
    assert events.wait(Woke).wake.sequence == 2
    second.delete()
