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
from aetherless_snapshotter import netns
from aetherless_snapshotter.sandbox import Sandbox, delete_all, delete_folder
from aetherless_snapshotter.sandbox_errors import (
    CommandTimeoutError,
    SandboxError,
    SandboxGoneError,
    WrongStateError,
)
from aetherless_snapshotter.sandbox_events import (
    Armed,
    HandlerReady,
    RootExited,
    SandboxEnded,
    SandboxState,
    Woke,
)
from aetherless_snapshotter.sandbox_spec import FUNCTION_UID
from framework.sandbox_world import Events, SandboxWorld, sandbox_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    from aetherless.snapshotter.v1 import instance_pb2

pytestmark = pytest.mark.root

PATH = {"PATH": "/usr/bin:/bin"}


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SandboxWorld]:
    """Return a place for sandboxes."""
    with sandbox_world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(tmp_path: Path, make_workload: Callable[..., instance_pb2.Workload]) -> object:
    """Return a function whose folder is seen in the sandbox."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text("import time; time.sleep(100)\n")
    return make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))


@pytest.fixture
def made(place: SandboxWorld, workload: instance_pb2.Workload) -> Iterator[tuple[Sandbox, Events]]:
    """Return a fresh sandbox with its events."""
    sandbox, events = place.create("one", workload)
    yield sandbox, events
    sandbox.delete()


def groups(place: SandboxWorld, name: str = "") -> list[Path]:
    """Return where the control groups of an instance, or of the orchestrator, exist."""
    mounts = (cgroup_v2_mount(), cgroup_v1_mount("memory"), cgroup_v1_mount("pids"))
    parent = place.place.settings.cgroup_name
    return [mount / parent / name for mount in mounts if mount and (mount / parent / name).exists()]


def run(sandbox: Sandbox, events: Events, script: str) -> int:
    """Run a shell script as the golden program; returns its status."""
    count = len(events.of(RootExited))
    sandbox.spawn(["/bin/sh", "-c", script], PATH, "/")
    return events.wait(RootExited, count + 1).code


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


# The program


def test_a_program_has_no_rights(made: tuple[Sandbox, Events]) -> None:
    """It runs as uid 1000, without capabilities, with no_new_privs, and writes to the log."""
    sandbox, events = made
    log = sandbox.folder.parents[2] / "state" / "functions-log" / "hello.log"
    assert run(sandbox, events, "id -u; grep -E 'Cap|NoNew' /proc/self/status; hostname") == 0
    words = log.read_text().split()
    assert words[0] == "1000"
    assert set(words[words.index("CapInh:") + 1 : words.index("NoNewPrivs:") : 2]) == {"0" * 16}
    assert words[words.index("NoNewPrivs:") + 1] == "1"
    assert words[-1] == "aether"


def test_a_missing_log_is_made(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """The log is there before the program is, and is the function's own."""
    spec = place.builder.build("one", workload, "").spec
    spec.log_file.unlink()
    events = Events()
    sandbox = Sandbox.create(spec, events.take)
    assert run(sandbox, events, "echo words") == 0
    assert spec.log_file.read_text() == "words\n"
    assert spec.log_file.stat().st_uid == spec.uid_base + FUNCTION_UID
    sandbox.delete()


def test_exit_and_signal_are_told(made: tuple[Sandbox, Events]) -> None:
    """A program's end comes as an event; the sandbox is idle again."""
    sandbox, events = made
    pid = sandbox.spawn(["/bin/sh", "-c", "exit 7"], PATH, "/")
    assert pid > 9000
    assert events.wait(RootExited) == RootExited(pid, 7, 0, out_of_memory=False)
    sandbox.kill_tree()
    sandbox.spawn(["/bin/sh", "-c", "kill -TERM $$"], PATH, "/")
    second = events.wait(RootExited, 2)
    assert (second.code, second.signal) == (-1, signal.SIGTERM)


def test_out_of_memory_is_told(made: tuple[Sandbox, Events]) -> None:
    """A program that meets the limit is ended whole, and the event says why."""
    sandbox, events = made
    eater = "b = bytearray(500 << 20)\nfor i in range(0, len(b), 4096): b[i] = 1"
    sandbox.spawn(["/usr/bin/python3", "-c", eater], PATH, "/")
    assert events.wait(RootExited).out_of_memory


def test_exec_failure_has_its_error_number(made: tuple[Sandbox, Events]) -> None:
    """What is no program is refused with the kernel's reason, and another can be started."""
    sandbox, events = made
    with pytest.raises(SandboxError) as caught:
        sandbox.spawn(["/no such/program"], PATH, "/")
    assert caught.value.errno == 2
    assert run(sandbox, events, "exit 3") == 3


def test_a_second_program_is_refused(made: tuple[Sandbox, Events]) -> None:
    """Only one program runs; killing the tree makes room."""
    sandbox, _ = made
    sandbox.spawn(["/bin/sleep", "100"], PATH, "/")
    with pytest.raises(WrongStateError, match="started"):
        sandbox.spawn(["/bin/sleep", "100"], PATH, "/")
    sandbox.kill_tree()
    assert sandbox.status().state is SandboxState.IDLE


def test_environment_and_arguments_arrive_whole(made: tuple[Sandbox, Events]) -> None:
    """Words with spaces, percent signs, newlines, or none at all, are what they were."""
    sandbox, events = made
    odd = "a b%20\n\u00fc"
    script = 'test "$1" = "$ODD" && test -z "$2" && test $# = 2'
    sandbox.spawn(["/bin/sh", "-c", script, "sh", odd, ""], {**PATH, "ODD": odd}, "/tmp")
    assert events.wait(RootExited).code == 0


def test_layers_hold_what_was_written(made: tuple[Sandbox, Events]) -> None:
    """The host reads a tree's upper layer while the sandbox lives."""
    sandbox, events = made
    assert run(sandbox, events, "echo new > /tmp/file; echo mine > $HOME/x; exit 0") == 0
    assert (sandbox.layer("tmp") / "file").read_text() == "new\n"
    assert sandbox.layer("fn").is_dir()


def test_ready_on_the_handler_socket(made: tuple[Sandbox, Events]) -> None:
    """READY comes as an event; after closing there is no socket any more."""
    sandbox, events = made
    sandbox.open_handler_socket()
    client = (
        "import socket; s = socket.socket(socket.AF_UNIX);"
        " s.connect('/run/aether/handler.sock'); s.send(b'READY'); s.recv(1)"
    )
    sandbox.spawn(["/usr/bin/python3", "-c", client], PATH, "/")
    events.wait(HandlerReady)
    sandbox.close_handler_socket()
    assert events.wait(RootExited).code == 0
    assert run(sandbox, events, "test ! -e /run/aether/handler.sock") == 0


def test_the_network_inside(made: tuple[Sandbox, Events]) -> None:
    """The loopback is up, and ports below 1024 are free to use, without anything of the host's."""
    sandbox, _ = made
    with netns.make_socket(sandbox.netns_path, socket.AF_INET, socket.SOCK_STREAM) as listener:
        listener.bind(("127.0.0.1", 80))
        listener.listen()
        with netns.make_socket(sandbox.netns_path, socket.AF_INET, socket.SOCK_STREAM) as client:
            client.settimeout(5)
            client.connect(("127.0.0.1", 80))


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
