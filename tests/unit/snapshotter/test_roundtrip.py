# SPDX-License-Identifier: Apache-2.0
"""A function's whole way through the real service: golden, dump, clone, packet, answer."""

from __future__ import annotations

import signal
import threading
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import AetherlessError
from aetherless_common.proc import start_ticks
from framework.processes import wait_until
from framework.snapshotter_world import INNER_IPV4, PORT, WAIT, World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

COUNTER = """
import http.server, os, sys

served = 0
print("started", flush=True)

class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        global served
        served += 1
        if self.path == "/write":
            open("written", "w").write("by a clone")
        if self.path == "/exit":
            os._exit(7)
        body = f"{served} {os.getpid()} {sorted(os.listdir('.'))}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

open("golden", "w").write("kept")
open("/tmp/scratch", "w").write("kept too")
server = http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler)
server.serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def counter(tmp_path: Path, make_workload: MakeWorkload) -> instance_pb2.Workload:
    """Return a function that counts the requests it served."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(COUNTER)
    return make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))


def is_alive(pid: int) -> bool:
    """Tell whether a process lives; one that nobody reaped yet does not."""
    try:
        return start_ticks(pid) > 0
    except ProcessLookupError:
        return False


def test_golden_dump_clone_packet_answer(place: World, counter: instance_pb2.Workload) -> None:
    """The first packet restores the process: its memory and its files are the golden's."""
    done, snapshot = place.checkpoint(place.golden(counter))
    assert done == [
        "start",
        "ready",
        "warm-up",
        "quiesce",
        "inspect",
        "dump",
        "copy-files",
        "images",
        "copy-on-write",
        "manifest",
        "publish",
    ]
    assert snapshot.listen_families == snapshot_pb2.LISTEN_FAMILIES_IPV4
    assert [process.command for process in snapshot.processes] == ["python3"]
    clone = place.clone(counter, snapshot)
    assert clone.state == instance_pb2.INSTANCE_STATE_ARMED
    status, body, retransmissions = place.get()
    served, pid, files = body.decode().split(" ", 2)
    assert (status, served) == (200, "2")  # the warm-up was the first
    assert int(pid) == snapshot.processes[0].pid
    assert files == "['golden', 'handler.py']"
    assert retransmissions == 0
    running = place.instance(clone.name)
    assert running.state == instance_pb2.INSTANCE_STATE_RUNNING
    assert running.sandbox_root_pid == int(pid)
    assert Path(f"/proc/{running.root_pid}/exe").readlink().name.startswith("python3")
    assert running.unique_memory_bytes > 1 << 20
    assert running.last_wake.cause == instance_pb2.WAKE_CAUSE_PACKET
    assert running.last_wake.restore_duration.ToNanoseconds() > 0
    assert running.restore_stats.count == 1


def test_an_eviction_forgets_what_the_clone_wrote(
    place: World, counter: instance_pb2.Workload
) -> None:
    """Each restore begins at the same instant, files included."""
    clone = place.deploy(counter)
    assert b"'written'" in place.get("/write")[1]
    with place.stub() as stub:
        evicted = stub.EvictInstance(pb.EvictInstanceRequest(name=clone.name)).instance
    assert (evicted.state, evicted.evictions) == (instance_pb2.INSTANCE_STATE_ARMED, 1)
    _, body, _ = place.get()
    assert body.startswith(b"2 ")
    assert b"written" not in body


def test_wake_by_command_and_a_handler_that_ends(
    place: World, counter: instance_pb2.Workload
) -> None:
    """A command restores as a packet does; a tree that ended by itself is armed again."""
    clone = place.deploy(counter)
    with place.stub() as stub:
        woken = stub.WakeInstance(pb.WakeInstanceRequest(name=clone.name)).instance
        again = stub.WakeInstance(pb.WakeInstanceRequest(name=clone.name)).instance
    assert woken.state == again.state == instance_pb2.INSTANCE_STATE_RUNNING
    assert woken.last_wake.cause == instance_pb2.WAKE_CAUSE_COMMAND
    assert again.last_wake.sequence == woken.last_wake.sequence == 1
    with place.client() as client:
        client.connect((INNER_IPV4, PORT))
        client.sendall(b"GET /exit HTTP/1.0\r\n\r\n")
        assert client.recv(100) == b""
    place.wait_for(clone.name, instance_pb2.INSTANCE_STATE_ARMED)
    assert place.get()[1].startswith(b"2 ")


def test_a_restart_adopts_what_lives(place: World, counter: instance_pb2.Workload) -> None:
    """While the service is dead, an armed clone wakes and answers; later it is known again."""
    clone = place.deploy(counter)
    place.stop(signal.SIGKILL)
    assert place.get()[1].startswith(b"2 ")
    place.start()
    adopted = place.instance(clone.name)
    assert adopted.state == instance_pb2.INSTANCE_STATE_RUNNING
    assert (adopted.wakes, adopted.last_wake.sequence) == (1, 1)
    assert adopted.workload == counter
    assert (adopted.init_pid, adopted.create_time) == (clone.init_pid, clone.create_time)
    assert place.get()[1].startswith(b"3 ")
    with place.stub() as stub:
        arming = pb.ArmInstanceRequest(name=clone.name, host_link="tclone0", inner_ipv4=INNER_IPV4)
        assert stub.ArmInstance(arming).instance.state == instance_pb2.INSTANCE_STATE_RUNNING
        stub.EvictInstance(pb.EvictInstanceRequest(name=clone.name))
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=clone.name))
        assert not stub.ListInstances(pb.ListInstancesRequest()).instances
    assert not list((place.settings.runtime_dir / "instances").iterdir())


def test_a_restart_removes_a_golden(place: World, counter: instance_pb2.Workload) -> None:
    """A golden of a dead service is of no use; its init ends."""
    golden = place.golden(counter)
    place.stop(signal.SIGKILL)
    place.start()
    with place.stub() as stub:
        assert not stub.ListInstances(pb.ListInstancesRequest()).instances
    assert not is_alive(golden.init_pid)


def test_steps_are_repeatable(place: World, counter: instance_pb2.Workload) -> None:
    """What a registry does again after a crash is harmless, or refused by type."""
    golden = place.golden(counter)
    with place.stub() as stub:
        request = pb.CreateInstanceRequest(
            instance_id="hello-r1-golden",
            workload=counter,
            role=instance_pb2.INSTANCE_ROLE_GOLDEN,
        )
        assert stub.CreateInstance(request).instance == golden
        request.workload.memory_limit_bytes += 1
        with pytest.raises(AetherlessError) as caught:
            stub.CreateInstance(request)
        assert caught.value.reason == "INSTANCE_EXISTS"
        making = pb.CreateSnapshotRequest(snapshot_id="hello-r1", instance=golden.name)
        first = list(stub.CreateSnapshot(making))[-1].snapshot
        (second,) = stub.CreateSnapshot(making)
        assert second.snapshot == first
        making.snapshot_id = "other"
        with pytest.raises(AetherlessError) as caught:
            list(stub.CreateSnapshot(making))
        assert caught.value.reason == "INVALID_STATE_TRANSITION"


def test_a_used_snapshot_stays_and_an_unused_one_goes(
    place: World, counter: instance_pb2.Workload
) -> None:
    """With the last user the snapshot can go; the revision's copy stays until it is deleted."""
    clone = place.deploy(counter)
    deletion = pb.DeleteSnapshotRequest(name="snapshots/hello-r1")
    copy = place.settings.root_path("hello", 1)
    with place.stub() as stub:
        with pytest.raises(AetherlessError) as caught:
            stub.DeleteSnapshot(deletion)
        assert caught.value.metadata["instance"] == "hello-r1-0"
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=clone.name))
        stub.DeleteSnapshot(deletion)
        assert copy.exists()
        stub.DeleteRoot(pb.DeleteRootRequest(name="roots/hello/1"))
        assert not copy.exists()
        assert not stub.ListSnapshots(pb.ListSnapshotsRequest()).snapshots


def test_a_damaged_snapshot_is_refused(place: World, counter: instance_pb2.Workload) -> None:
    """A sandbox for a damaged snapshot is not made."""
    _, snapshot = place.checkpoint(place.golden(counter))
    image = next((place.settings.snapshot_path("hello-r1") / "images").glob("pages-*.img"))
    with image.open("r+b") as file:
        file.seek(4096)
        file.write(b"damage")
    with pytest.raises(AetherlessError) as caught:
        place.clone(counter, snapshot)
    assert caught.value.reason == "SNAPSHOT_CORRUPT"
    assert caught.value.metadata["file"] == f"images/{image.name}"


DIES = "import sys; print('last words'); sys.exit(3)"
SLEEPS = "import time; print('last words', flush=True); time.sleep(60)"
SILENT = """
import os, socket, time
print("last words", flush=True)
listener = socket.create_server(("", int(os.environ["PORT"])))
time.sleep(60)
"""
GREEDY = """
print("last words", flush=True)
kept = []
while True:
    kept.append(bytearray(1 << 20))
"""
FAILURES = [
    (DIES, "HANDLER_EXITED", {"status": "status 3"}),
    (SLEEPS, "READY_TIMEOUT", {"timeoutMs": "1500"}),
    (SILENT, "WARMUP_FAILED", {"problem": "timed out"}),
    (GREEDY, "MEMORY_LIMIT_EXCEEDED", {"limitBytes": str(64 << 20)}),
]


@pytest.mark.parametrize(("script", "reason", "metadata"), FAILURES)
def test_handlers_that_fail(
    place: World,
    tmp_path: Path,
    make_workload: MakeWorkload,
    script: str,
    reason: str,
    metadata: dict[str, str],
) -> None:
    """Each failure has its reason, the handler's last lines, and leaves no snapshot behind."""
    (tmp_path / "handler.py").write_text(script)
    workload = make_workload()
    workload.timeout.FromMilliseconds(1500)
    with pytest.raises(AetherlessError) as caught:
        place.checkpoint(place.golden(workload))
    assert caught.value.reason == reason
    assert metadata.items() <= caught.value.metadata.items()
    if reason != "MEMORY_LIMIT_EXCEEDED":
        assert caught.value.metadata["log"] == "last words"
    instance = place.instance("instances/hello-r1-golden")
    assert instance.state == instance_pb2.INSTANCE_STATE_ENDED
    assert not list(place.settings.snapshot_root.glob("*"))


def test_a_watcher_sees_the_whole_life(place: World, counter: instance_pb2.Workload) -> None:
    """First what is, then each change; a wake comes with its times."""
    seen: list[tuple[str, str]] = []
    wakes: list[instance_pb2.Wake] = []
    synced = threading.Event()
    ended = threading.Event()

    def watch() -> None:
        with place.stub() as stub:
            for response in stub.WatchInstances(pb.WatchInstancesRequest(function_id="hello")):
                if response.synced:
                    synced.set()
                    continue
                state = instance_pb2.InstanceState.Name(response.instance.state)
                seen.append((response.instance.name, state.removeprefix("INSTANCE_STATE_")))
                if response.HasField("wake"):
                    wakes.append(response.wake)
                if len([one for one in seen if one[1] == "ENDED"]) > 2:
                    ended.set()
                    return

    thread = threading.Thread(target=watch)
    thread.start()
    assert synced.wait(WAIT)
    clone = place.deploy(counter)
    place.get()
    with place.stub() as stub:
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=clone.name))
    wait_until(lambda: (clone.name, "ENDED") in seen, "its end is told")
    states = [state for name, state in seen if name == clone.name]
    assert states == ["CREATED", "ARMED", "RESTORING", "RUNNING", "ENDED"]
    golden = [state for name, state in seen if name.endswith("golden")]
    assert golden[:3] == ["CREATED", "STARTED", "ENDED"]
    (wake,) = wakes
    assert wake.held_packets >= 1
    assert not wake.failure_reason


def test_logs_are_followed(place: World, counter: instance_pb2.Workload) -> None:
    """What the golden printed is there."""
    place.checkpoint(place.golden(counter))
    with place.stub() as stub:
        request = pb.TailLogsRequest(function_id="hello", lines=1)
        text = b"".join(response.data for response in stub.TailLogs(request))
    assert text == b"started\n"


def test_the_host_is_checked_by_a_real_restore(place: World) -> None:
    """Doctor's checks, the trial included, pass on a machine that runs these tests."""
    with place.stub() as stub:
        checks = stub.CheckHost(pb.CheckHostRequest(force=True)).checks
    assert [f"{check.name}: {check.message}" for check in checks if not check.ok] == []
    assert checks[-1].name == "checkpoint-restore"
    assert "restored" in checks[-1].message


def test_cleanup_leaves_nothing(place: World, counter: instance_pb2.Workload) -> None:
    """Whether or not anything lives."""
    clone = place.deploy(counter)
    place.get()
    place.stop(signal.SIGKILL)
    place.cleanup()
    assert not is_alive(clone.init_pid)
    assert not place.settings.snapshot_dir.exists()
    assert not (place.settings.runtime_dir / "instances").exists()
    place.cleanup()
