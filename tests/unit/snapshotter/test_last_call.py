# SPDX-License-Identifier: Apache-2.0
"""Evictions that take no for an answer: what was taken is answered, what comes later is not."""

from __future__ import annotations

import subprocess
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import InvalidArgument
from framework.clients import KeptConnection
from framework.processes import wait_until
from framework.snapshotter_world import INNER_IPV4, PORT, WAIT, World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

# Answers with the path, after as many seconds as it says; prints each request before the work.
SERVER = """
import http.server, os, time

class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def do_GET(self):
        print("asked", self.path, flush=True)
        time.sleep(float(self.path.rpartition("/")[2] or 0))
        self.send_response(200)
        self.send_header("Content-Length", str(len(self.path)))
        self.end_headers()
        self.wfile.write(self.path.encode())

    def log_message(self, *_):
        pass

http.server.ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def clone(place: World, tmp_path: Path, make_workload: MakeWorkload) -> instance_pb2.Instance:
    """Return an armed instance of the server."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(SERVER)
    return place.deploy(
        make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))
    )


def request(clone: instance_pb2.Instance, last_call_ms: int) -> pb.EvictInstanceRequest:
    """Return the request for an eviction with a last call."""
    made = pb.EvictInstanceRequest(name=clone.name)
    made.patience.FromMilliseconds(30)
    made.last_call.FromMilliseconds(last_call_ms)
    return made


def connect(place: World) -> KeptConnection:
    """Return a connection to the function that is kept."""
    return KeptConnection(PORT, INNER_IPV4, timeout_s=WAIT, make=place.client)


def gate_is_closed(instance: instance_pb2.Instance) -> bool:
    """Tell whether the kernel inside does not take what is sent to the function's address."""
    command = ["nsenter", f"--net={instance.netns_path}", "ip", "route", "show", "table", "local"]
    routes = subprocess.run(command, capture_output=True, text=True, timeout=WAIT, check=True)
    return INNER_IPV4 not in routes.stdout


def asked(place: World) -> list[str]:
    """Return what the program was asked, its warm-up left out."""
    with place.stub() as stub:
        blocks = stub.TailLogs(pb.TailLogsRequest(function_id="hello", lines=100))
        lines = b"".join(block.data for block in blocks).decode().splitlines()
    return [line for line in lines if line.startswith("asked") and line != "asked /"]


def test_what_was_taken_is_answered_and_what_comes_later_is_not_worked_on(
    place: World, clone: instance_pb2.Instance
) -> None:
    """Both clients learn at once; nobody is left without knowing whether it was done."""
    slow, quick = connect(place), connect(place)
    assert quick.request("/first/0").ok
    with ThreadPoolExecutor(2) as threads, place.stub() as stub:
        answer = threads.submit(slow.request, "/slow/3")
        wait_until(lambda: "asked /slow/3" in asked(place), "the slow request is taken")
        eviction = threads.submit(stub.EvictInstance, request(clone, 10_000))
        wait_until(lambda: gate_is_closed(clone), "nothing more is taken")
        with pytest.raises(ConnectionError):
            quick.request("/late/0")
        assert answer.result(WAIT).body == b"/slow/3"
        assert eviction.result(WAIT).instance.evictions == 1
    # A reset alone when the other connection held the end up: acknowledgements are held too, so
    # that the kernel takes the answer for lost by then, and sends no FIN after it.
    with suppress(ConnectionResetError):
        assert slow.client.recv(1) == b""
    assert asked(place) == ["asked /first/0", "asked /slow/3"]
    assert connect(place).request("/next/0").ok


def test_what_takes_too_long_ends_with_the_last_call(
    place: World, clone: instance_pb2.Instance
) -> None:
    """It is reset when the time is over; the next client wakes the function."""
    stuck = connect(place)
    with ThreadPoolExecutor(1) as threads, place.stub() as stub:
        answer = threads.submit(stuck.request, "/stuck/600")
        wait_until(lambda: "asked /stuck/600" in asked(place), "the request is taken")
        ended = stub.EvictInstance(request(clone, 300)).instance
        assert (ended.state, ended.evictions) == (instance_pb2.INSTANCE_STATE_ARMED, 1)
        with pytest.raises(ConnectionError):
            answer.result(WAIT)
    assert connect(place).request("/next/0").ok


def test_an_answer_in_two_parts_is_not_cut(place: World, clone: instance_pb2.Instance) -> None:
    """Though no acknowledgement of the first part arrives, and the second is small."""
    kept = connect(place)
    with ThreadPoolExecutor(2) as threads, place.stub() as stub:
        answer = threads.submit(kept.request, "/two-parts/1")
        wait_until(lambda: "asked /two-parts/1" in asked(place), "the request is taken")
        assert stub.EvictInstance(request(clone, 5_000)).instance.evictions == 1
        assert answer.result(WAIT).body == b"/two-parts/1"


def test_a_client_that_pauses_is_no_reason_to_wait(
    place: World, clone: instance_pb2.Instance
) -> None:
    """Who has its answer reads the end of the stream, and its next connection is answered."""
    kept = connect(place)
    assert kept.request("/a/0.1").ok
    with place.stub() as stub:
        assert stub.EvictInstance(request(clone, 10_000)).instance.evictions == 1
    assert kept.client.recv(1) == b""
    assert connect(place).request("/b/0").ok


def test_a_last_call_is_short(place: World, clone: instance_pb2.Instance) -> None:
    """Clients are held meanwhile."""
    for milliseconds in (-1, 10_001):
        with place.stub() as stub, pytest.raises(InvalidArgument):
            stub.EvictInstance(request(clone, milliseconds))
