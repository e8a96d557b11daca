# SPDX-License-Identifier: Apache-2.0
"""Trial restores in a sandbox without the service: the init's part."""

from __future__ import annotations

import socket
from typing import TYPE_CHECKING

import pytest

from aetherless_snapshotter import criu, netns, processes
from aetherless_snapshotter.sandbox_errors import SandboxError, WrongStateError
from aetherless_snapshotter.sandbox_events import SandboxState, WakeFailure
from aetherless_snapshotter.seal import sealed
from framework.processes import wait_until
from framework.sandbox_world import SNAPSHOT, SandboxWorld, sandbox_world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless.snapshotter.v1 import instance_pb2
    from aetherless_snapshotter.sandbox import Sandbox

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

HANDLER = """
import os, socket

listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(65536):
            connection.sendall(b"HTTP/1.0 200 OK\\r\\nContent-Length: 0\\r\\n\\r\\n")
"""
OUTSIDE = ("203.0.113.9", 9)


@pytest.fixture
def place(tmp_path: Path) -> Iterator[SandboxWorld]:
    """Return a place for sandboxes."""
    with sandbox_world(tmp_path) as made:
        yield made


@pytest.fixture
def workload(
    place: SandboxWorld, tmp_path: Path, make_workload: MakeWorkload
) -> instance_pb2.Workload:
    """Return a function whose snapshot was made."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    made = make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))
    place.checkpoint(made)
    return made


@pytest.fixture
def clone(place: SandboxWorld, workload: instance_pb2.Workload) -> Sandbox:
    """Return a clone's sandbox that has its link and is not armed."""
    sandbox, _ = place.create("clone", workload, SNAPSHOT)
    place.place.link("clone0", sandbox.init_pid)
    return sandbox


def test_a_trial_has_its_order(clone: Sandbox) -> None:
    """CRIU is asked once, after it was started and before it is ended."""
    request = criu.restore_request(leave_stopped=True)
    with pytest.raises(WrongStateError):
        clone.restore(timeout=5)
    clone.begin_trial(request, deadline_ms=5000)
    assert clone.status().state is SandboxState.TRYING
    for command in (lambda: clone.begin_trial(request, deadline_ms=5000), clone.wake):
        with pytest.raises(WrongStateError):
            command()
    wake = clone.restore(timeout=30)
    assert wake.ok
    assert (wake.sequence, clone.status().root_pid) == (0, wake.root_pid)
    pid = processes.host_pid(clone.init_pid, wake.root_pid)
    stat = processes.PROC / str(pid) / "stat"
    wait_until(lambda: stat.read_text().rpartition(")")[2].split()[0] == "T", "it is stopped")
    with pytest.raises(WrongStateError):
        clone.restore(timeout=5)
    clone.kill_tree()
    clone.kill_tree()
    status = clone.status()
    assert (status.state, status.root_pid, status.wakes) == (SandboxState.IDLE, 0, 0)


def test_trials_that_fail(clone: Sandbox) -> None:
    """A late one, and one that CRIU refuses, are told as such; the sandbox can be used again."""
    clone.begin_trial(criu.restore_request(), deadline_ms=1)
    assert clone.restore(timeout=30).failure is WakeFailure.LATE
    clone.kill_tree()
    clone.begin_trial(b"\x08\x7f", deadline_ms=5000)
    assert clone.restore(timeout=30).failure in {WakeFailure.REFUSED, WakeFailure.DIED}
    clone.kill_tree()
    with pytest.raises(SandboxError):
        clone.begin_trial(b"", deadline_ms=5000)
    clone.begin_trial(criu.restore_request(), deadline_ms=5000)
    assert clone.restore(timeout=30).ok
    clone.kill_tree()


def test_a_sealed_sandbox_reaches_itself_alone(clone: Sandbox) -> None:
    """What goes out is unreachable at once; afterwards all is as it was."""
    path = clone.netns_path
    with (
        netns.make_socket(path, socket.AF_INET, socket.SOCK_DGRAM) as datagrams,
        netns.make_socket(path, socket.AF_INET, socket.SOCK_DGRAM) as receiver,
    ):
        receiver.bind(("127.0.0.1", 0))
        receiver.settimeout(5)
        datagrams.sendto(b"before", OUTSIDE)
        with sealed(path):
            with pytest.raises(OSError, match="No route to host"):
                datagrams.sendto(b"sealed", OUTSIDE)
            datagrams.sendto(b"inside", receiver.getsockname())
            assert receiver.recv(64) == b"inside"
            with sealed(path):  # one that lost its service is sealed still
                pass
        datagrams.sendto(b"after", OUTSIDE)
