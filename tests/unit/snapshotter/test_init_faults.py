# SPDX-License-Identifier: Apache-2.0
"""The init under load and under faults: bursts, evictions under fire, late and broken restores."""

from __future__ import annotations

import os
import re
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.cgroups import cgroup_v2_mount
from aetherless_common.errors import AetherlessError
from framework.snapshotter_world import INNER_IPV4, PORT, WAIT, World, world

if TYPE_CHECKING:
    import socket
    from collections.abc import Callable, Iterator

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

BURST = 100
DEADLINE_MS = 300
ARMED = instance_pb2.INSTANCE_STATE_ARMED

SERVER = """
import http.server, os, time

served = 0
kept = []

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        global served
        served += 1
        if self.path == "/grow":
            while True:
                kept.append(bytearray(1 << 20))
        if self.path == "/slow":
            time.sleep(2)
        if self.path == "/keep":
            time.sleep(0.02)  # else the kernel's clock can't tell the answer from the request
        body = f"{served} {os.getpid()}".encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        if self.path != "/keep":
            self.send_header("Connection", "close")
            self.close_connection = True
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

class Server(http.server.ThreadingHTTPServer):
    daemon_threads = True

Server(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(tmp_path: Path, make_workload: MakeWorkload) -> instance_pb2.Workload:
    """Return a threaded HTTP server as a function with a deadline that tests can wait for."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(SERVER)
    made = make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))
    made.restore_timeout.FromMilliseconds(DEADLINE_MS)
    return made


def evict(place: World, clone: instance_pb2.Instance) -> instance_pb2.Instance:
    """Evict as ``aetherctl evict`` does."""
    with place.stub() as stub:
        return stub.EvictInstance(pb.EvictInstanceRequest(name=clone.name)).instance


def try_evict(place: World, clone: instance_pb2.Instance) -> bool:
    """Evict at a moment when that may be refused; returns whether it was done."""
    try:
        evict(place, clone)
    except AetherlessError as error:
        if error.reason not in {"REQUEST_IN_FLIGHT", "INVALID_STATE_TRANSITION"}:
            raise
        return False
    return True


def tree_group(place: World, clone: instance_pb2.Instance) -> Path:
    """Return the tree's v2 control group."""
    name = clone.name.removeprefix("instances/")
    return cgroup_v2_mount() / place.settings.cgroup_name / name / "tree"


def read_answer(client: socket.socket) -> bytes:
    """Receive one whole answer of SERVER, whose bodies are of a number, a space and a pid."""
    received = b""
    while not re.search(rb"\r\n\r\n\d+ 10000$", received):
        block = client.recv(1000)
        assert block, received
        received += block
    return received


def reset_after(place: World) -> float:
    """Connect, expect a reset, and return after how many seconds it came."""
    begun = time.monotonic()
    with pytest.raises(ConnectionError):
        place.get()
    return time.monotonic() - begun


def test_bursts_of_first_calls(place: World, workload: instance_pb2.Workload) -> None:
    """A hundred first clients at once are all answered, and none of them sends anything twice."""
    clone = place.deploy(workload)
    for wakes in (1, 2, 3):
        with ThreadPoolExecutor(BURST) as clients:
            answers = list(clients.map(lambda _: place.get(), range(BURST)))
        assert {status for status, _, _ in answers} == {200}
        assert {retransmissions for _, _, retransmissions in answers} == {0}
        assert max(int(body.split()[0]) for _, body, _ in answers) == BURST + 1
        assert place.instance(clone.name).wakes == wakes
        assert evict(place, clone).state == ARMED
    assert place.instance(clone.name).failed_wakes == 0


def test_evictions_under_fire(place: World, workload: instance_pb2.Workload) -> None:
    """Clients that call all the while an instance is evicted are all answered.

    (Whether one sends a segment twice is a matter of how long the init waits for a processor.)
    """
    clone = place.deploy(workload)
    over = threading.Event()

    def fire() -> list[int]:
        seen = []
        while not over.is_set():
            seen.append(place.get()[0])
        return seen

    with ThreadPoolExecutor(2) as clients:
        firing = [clients.submit(fire) for _ in range(2)]
        evictions = 0
        try:
            until = time.monotonic() + WAIT
            while evictions < 25 and time.monotonic() < until:
                evictions += try_evict(place, clone)
        finally:
            over.set()
        answers = [answer for one in firing for answer in one.result(timeout=WAIT)]
    assert evictions == 25
    assert set(answers) == {200}
    assert place.instance(clone.name).failed_wakes == 0


def test_an_idle_connection_ends_and_a_slow_one_refuses(
    place: World, workload: instance_pb2.Workload
) -> None:
    """An eviction ends idle keep-alive connections, and never one that waits for its answer."""
    clone = place.deploy(workload)
    with place.client() as idle, place.client() as waiting:
        idle.connect((INNER_IPV4, PORT))
        idle.sendall(b"GET /keep HTTP/1.1\r\nHost: f\r\n\r\n")
        assert read_answer(idle).startswith(b"HTTP/1.1 200")
        waiting.connect((INNER_IPV4, PORT))
        waiting.sendall(b"GET /slow HTTP/1.1\r\nHost: f\r\n\r\n")
        with place.stub() as stub:
            request = pb.EvictInstanceRequest(name=clone.name)
            request.patience.FromMilliseconds(50)
            with pytest.raises(AetherlessError) as refused:
                stub.EvictInstance(request)
        assert refused.value.reason == "REQUEST_IN_FLIGHT"
        assert read_answer(waiting).startswith(b"HTTP/1.1 200")
        assert place.instance(clone.name).evictions == 0
    with place.client() as idle:
        idle.connect((INNER_IPV4, PORT))
        idle.sendall(b"GET /keep HTTP/1.1\r\nHost: f\r\n\r\n")
        assert read_answer(idle).startswith(b"HTTP/1.1 200")
        assert evict(place, clone).state == ARMED
        assert idle.recv(1) == b""


def test_a_late_restore(place: World, workload: instance_pb2.Workload) -> None:
    """A restore that hangs is ended at its deadline: the client is reset, the next call works."""
    clone = place.deploy(workload)
    freezer = tree_group(place, clone) / "cgroup.freeze"
    freezer.write_text("1")
    took = reset_after(place)
    assert DEADLINE_MS / 1000 <= took < DEADLINE_MS / 1000 + 1
    freezer.write_text("0")
    place.wait_for(clone.name, ARMED)
    failed = place.instance(clone.name)
    assert (failed.failed_wakes, failed.wakes) == (1, 0)
    assert failed.last_wake.failure_reason == "RESTORE_LATENCY_VIOLATION"
    assert str(DEADLINE_MS) in failed.last_wake.failure_message
    assert place.get()[0] == 200


@pytest.mark.parametrize("damage", ["cut", "garbage"])
def test_a_damaged_image(place: World, workload: instance_pb2.Workload, damage: str) -> None:
    """What CRIU refuses, or hangs on, resets the client; nothing is restored from it again."""
    clone = place.deploy(workload)
    name = {"cut": "pages-1.img", "garbage": "inventory.img"}[damage]
    [image] = place.settings.snapshot_dir.rglob(name)
    whole = image.read_bytes()
    image.write_bytes(whole[: len(whole) // 2] if damage == "cut" else os.urandom(len(whole)))
    assert reset_after(place) < DEADLINE_MS / 1000 + 1
    assert name in ended(place, clone)


def ended(place: World, clone: instance_pb2.Instance) -> str:
    """Wait until an instance is ended for its snapshot's sake; return the refusal of another."""
    until = time.monotonic() + WAIT
    with place.stub() as stub:
        while stub.ListInstances(pb.ListInstancesRequest()).instances:
            assert time.monotonic() < until
            time.sleep(0.01)
        request = pb.CreateInstanceRequest(
            instance_id="next",
            workload=clone.workload,
            role=instance_pb2.INSTANCE_ROLE_CLONE,
            snapshot=clone.snapshot,
        )
        with pytest.raises(AetherlessError) as refused:
            stub.CreateInstance(request)
    assert refused.value.reason == "SNAPSHOT_CORRUPT"
    return str(refused.value)


@pytest.mark.parametrize("damage", ["removed", "garbage"])
def test_a_damaged_manifest(place: World, workload: instance_pb2.Workload, damage: str) -> None:
    """Nothing is known without it: the instance is ended, though nobody called."""
    clone = place.deploy(workload)
    [manifest] = place.settings.snapshot_dir.rglob("manifest.json")
    if damage == "removed":
        manifest.unlink()
    else:
        manifest.write_bytes(os.urandom(5000))
    assert "manifest.json" in ended(place, clone)
    with place.stub() as stub:
        [listed] = stub.ListSnapshots(pb.ListSnapshotsRequest(function_id="hello")).snapshots
        stub.DeleteSnapshot(pb.DeleteSnapshotRequest(name=listed.name))
    assert list(place.settings.snapshot_dir.rglob("images")) == []


def test_out_of_memory(place: World, workload: instance_pb2.Workload) -> None:
    """A tree that meets its limit is ended as a whole, and the next call restores it anew."""
    clone = place.deploy(workload)
    assert place.get()[0] == 200
    with place.client() as client:
        client.connect((INNER_IPV4, PORT))
        client.sendall(b"GET /grow HTTP/1.1\r\nHost: f\r\n\r\n")
        with suppress(ConnectionResetError):  # as good an end
            assert client.recv(1) == b""
    place.wait_for(clone.name, ARMED)
    assert place.get()[1].startswith(b"2 ")


def test_many_wakes_leave_nothing(place: World, workload: instance_pb2.Workload) -> None:
    """Descriptors and mounts of the init, and the sandbox's processes, are as after the first."""
    clone = place.deploy(workload)

    def footprint() -> tuple[int, int, int]:
        init = Path(f"/proc/{clone.init_pid}")
        until = time.monotonic() + WAIT
        group = tree_group(place, clone) / "cgroup.procs"
        while len(processes := group.read_text().split()) != 1:  # CRIU joins it by itself
            assert time.monotonic() < until, processes
        descriptors = len(list((init / "fd").iterdir()))
        mounts = len((init / "mounts").read_text().splitlines())
        return descriptors, mounts, len(processes)

    place.get()
    evict(place, clone)
    before = footprint()
    for _ in range(60):
        assert place.get()[0] == 200
        evict(place, clone)
    assert footprint() == before
    assert place.instance(clone.name).failed_wakes == 0
