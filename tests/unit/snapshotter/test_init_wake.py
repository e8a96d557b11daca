# SPDX-License-Identifier: Apache-2.0
"""What an armed init does alone: hold, restore, answer, reset, arm again, evict."""

from __future__ import annotations

import os
import signal
import time
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import processes
from aetherless_snapshotter.sandbox_errors import InFlightError, SandboxError
from aetherless_snapshotter.sandbox_events import (
    Armed,
    Evicted,
    RootExited,
    SandboxState,
    WakeCause,
    WakeFailure,
    Woke,
)
from framework.sandbox_world import SNAPSHOT, SandboxWorld, evict, get, sandbox_world
from framework.snapshotter_world import INNER_IPV4, PORT

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless.snapshotter.v1 import instance_pb2

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

HANDLER = """
import os, socket, threading, time

listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])), backlog=128)
count = 0

def serve(connection):
    global count
    with connection:
        request = connection.recv(65536)
        if not request:
            return
        if request.startswith(b"GET /slow"):
            time.sleep(1)
        count += 1
        body = str(count).encode()
        head = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        connection.sendall(head + body)

while True:
    threading.Thread(target=serve, args=(listener.accept()[0],)).start()
"""
CLIENTS = 100


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SandboxWorld]:
    """Return a place for sandboxes."""
    with sandbox_world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(
    place: SandboxWorld, tmp_path: Path, make_workload: MakeWorkload
) -> instance_pb2.Workload:
    """Return a function whose snapshot was made; it counts the requests it served."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    made = make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))
    place.checkpoint(made)
    return made


def test_a_hundred_first_clients(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """All first clients are answered without sending anything again; so after an evict."""
    sandbox, events = place.clone(workload)
    for turn in (1, 2, 3):
        answers = place.burst(CLIENTS)
        assert [status for status, _, _ in answers] == [200] * CLIENTS
        assert sum(again for _, _, again in answers) == 0
        # the golden's warm-up was its first request
        assert {int(body) for _, body, _ in answers} == set(range(2, CLIENTS + 2))
        wake = events.wait(Woke, turn).wake
        assert wake.ok
        assert wake.cause is WakeCause.PACKET
        assert wake.held >= 1
        assert wake.syn_ns <= wake.sent_ns <= wake.answer_ns <= wake.open_ns
        evict(sandbox)
        assert not events.wait(Evicted, turn).idle
        assert events.wait(Armed, turn + 1).generation == turn + 1
    status = sandbox.status()
    assert (status.state, status.wakes, status.failed_wakes) == (SandboxState.ARMED, 3, 0)
    sandbox.delete()


def test_wake_by_command(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """A command restores as a packet does; one that runs is left alone."""
    sandbox, _ = place.clone(workload)
    wake = sandbox.wake()
    assert wake is not None
    assert wake.ok
    assert wake.cause is WakeCause.COMMAND
    assert sandbox.wake() is None
    assert sandbox.status().root_pid == wake.root_pid > 1
    assert sandbox.wakes_since(0) == [wake]
    sandbox.evict()
    sandbox.evict()
    assert sandbox.status().evictions == 1
    sandbox.delete()


def test_a_late_restore_resets_the_client(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """When CRIU has not answered by the deadline, the client is reset, not left waiting."""
    sandbox, events = place.clone(workload, deadline_ms=1)
    with place.place.client() as client, pytest.raises(ConnectionError):
        get(client)
    wake = events.wait(Woke).wake
    assert wake.failure is WakeFailure.LATE
    assert wake.root_pid == 0
    assert wake.limit_ms == 1
    assert events.wait(Armed, 2).generation == 2
    assert sandbox.status().failed_wakes == 1
    sandbox.delete()


def test_a_damaged_snapshot_is_refused(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """CRIU's refusal resets the client, and says why."""
    sandbox, events = place.clone(workload)
    (place.builder.store.images(SNAPSHOT) / "pstree.img").write_bytes(b"damaged")
    with place.place.client() as client, pytest.raises(ConnectionError):
        get(client)
    wake = events.wait(Woke).wake
    assert wake.failure is WakeFailure.REFUSED
    assert wake.error
    sandbox.delete()


def test_a_request_in_flight_refuses_an_evict(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """A tree that owes a client its answer is not ended."""
    sandbox, _ = place.clone(workload)
    with place.place.client() as client:
        client.connect((INNER_IPV4, PORT))
        client.sendall(b"GET /slow HTTP/1.0\r\n\r\n")
        sandbox.wake()
        with pytest.raises(InFlightError):
            sandbox.evict()
        assert client.recv(65536).startswith(b"HTTP/1.0 200")
    evict(sandbox)
    sandbox.delete()


def test_idleness_evicts(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """Without connections the tree is ended after a while, and the next client wakes it."""
    sandbox, events = place.clone(workload, idle_after_ms=200)
    for turn in (1, 2):
        assert place.burst(1)[0][0] == 200
        assert events.wait(Evicted, turn).idle
        events.wait(Armed, turn + 1)
    sandbox.delete()


def test_who_is_in_use_by_other_ways_is_not_idle(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """As long as it is touched within its idle time it stays; then it is ended."""
    sandbox, events = place.clone(workload, idle_after_ms=600)
    sandbox.wake()
    until = time.monotonic() + 3
    while time.monotonic() < until:
        sandbox.touch()
    assert events.of(Evicted) == []
    assert events.wait(Evicted).idle
    sandbox.touch()
    sandbox.delete()


def test_a_root_that_dies_is_replaced(place: SandboxWorld, workload: instance_pb2.Workload) -> None:
    """When the restored process ends by itself, the sandbox arms again."""
    sandbox, events = place.clone(workload)
    wake = sandbox.wake()
    assert wake is not None
    root = processes.host_pid(sandbox.init_pid, wake.root_pid)
    assert root > 1
    pidfd = os.pidfd_open(root)
    signal.pidfd_send_signal(pidfd, signal.SIGKILL)  # SAFETY: one process, above 1, by descriptor
    os.close(pidfd)
    assert events.wait(RootExited).signal == signal.SIGKILL
    events.wait(Armed, 2)
    assert place.burst(1)[0][0] == 200
    sandbox.delete()


def test_an_armed_sandbox_spawns_nothing(
    place: SandboxWorld, workload: instance_pb2.Workload
) -> None:
    """A program is started in a golden only; the refusal changes nothing."""
    sandbox, _ = place.clone(workload)
    with pytest.raises(SandboxError, match="not possible"):
        sandbox.spawn(["/bin/true"], {}, "/")
    assert sandbox.status().state is SandboxState.ARMED
    sandbox.delete()
