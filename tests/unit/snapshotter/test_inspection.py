# SPDX-License-Identifier: Apache-2.0
"""Real programs in real sandboxes: what they hold is found, and CRIU agrees with each verdict."""

from __future__ import annotations

import os
import pty
import shutil
import socket
import threading
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import AetherlessError
from aetherless_snapshotter import netns
from framework.snapshotter_world import GATEWAY_IPV4, INNER_IPV4, World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

OUTSIDE_PORT = 7777
PROLOGUE = f"""
import ctypes, http.server, mmap, os, signal, socket, sys, time

GATEWAY, OUTSIDE_PORT = {GATEWAY_IPV4!r}, {OUTSIDE_PORT}
libc = ctypes.CDLL(None, use_errno=True)


def call(number, *arguments):
    result = libc.syscall(number, *arguments)
    if result < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
    return result


def given(name):
    with socket.socket(socket.AF_UNIX) as helper:
        helper.connect(os.path.join(GIVERS, name))
        return socket.recv_fds(helper, 1, 4)[1]


def file(path, flags=os.O_RDWR | os.O_CREAT):
    descriptor = os.open(path, flags, 0o600)
    os.write(descriptor, b"kept")
    return descriptor


def check():
    return b"ok"
"""
EPILOGUE = """
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        body = check()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_):
        pass

http.server.HTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
"""
REFUSED = {
    "io-uring": "held = call(425, 8, ctypes.create_string_buffer(120))",
    "mptcp": "held = socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262); held.listen()",
    "terminal": "held = given('terminal')",
    "device": "held = given('device')",
    "foreign-file": "held = given('file')",
    "unix-connection": "held = socket.socket(socket.AF_UNIX); held.connect(GIVERS + '/silent')",
    "unix-socket": "held = socket.socket(socket.AF_UNIX); held.bind('/tmp/s'); held.listen();"
    " os.unlink('/tmp/s')",
    "pending-connection": "held = socket.create_server(('127.0.0.1', 9001));"
    " client = socket.create_connection(('127.0.0.1', 9001))",
    "deleted-file": "held = file('/tmp/x'); os.link('/tmp/x', '/tmp/y'); os.unlink('/tmp/x')",
    "huge-pages": "held = os.memfd_create('x', os.MFD_HUGETLB)",
    "secret-memory": "held = call(447, 0)",
    "userfaultfd": "held = call(323, 1 | os.O_CLOEXEC)",
    "file-watch": "held = libc.inotify_init(); libc.inotify_add_watch(held, b'/tmp', 0xfff)",
    "pidfd": "held = os.pidfd_open(1)",
    "tracer": "held = os.fork()\nif held == 0:\n    libc.ptrace(0, 0, 0, 0)"
    "\n    os.kill(os.getpid(), signal.SIGSTOP)\nos.waitpid(held, os.WUNTRACED)",
}
CONNECTED = """
held = socket.create_connection((GATEWAY, OUTSIDE_PORT))


def check():
    try:
        return str(held.send(b"still open")).encode()
    except OSError:
        return b"closed"
"""
DELETED = """
held = file("/tmp/x")
os.unlink("/tmp/x")


def check():
    return os.pread(held, 9, 0)
"""
LOCKED = """
held = mmap.mmap(-1, 65536, mmap.MAP_PRIVATE | mmap.MAP_ANONYMOUS)
libc.mlock(ctypes.byref(ctypes.c_char.from_buffer(held)), 65536)
"""
KEPT = {
    "listener": ("held = socket.create_server(('0.0.0.0', 9001))", b"ok"),
    "outbound-connection": (CONNECTED, b"closed"),
    "deleted-file": (DELETED, b"kept"),
    "outside-file": ("held = os.open(GIVERS + '/data', os.O_RDONLY)", b"ok"),
    "locked-memory": (LOCKED, b"ok"),
}
#: What every Python program with this server has.
USUAL = {"random-generator"}


@pytest.fixture(scope="module")
def givers() -> Iterator[Path]:
    """Return a folder, to be mounted, of sockets at which a program gets what a sandbox lacks."""
    folder = Path(f"/run/aetest-givers-{os.getpid()}")
    folder.mkdir(mode=0o755)
    (folder / "data").write_text("of the host")
    makers: dict[str, Callable[[], list[int]]] = {
        "terminal": lambda: list(pty.openpty()),
        "device": lambda: [os.open("/dev/fuse", os.O_RDWR)],
        "file": lambda: [os.open("/etc/hostname", os.O_RDONLY)],
        "silent": list,
    }
    listeners = [_giver(folder / name, make) for name, make in makers.items()]
    yield folder
    for listener in listeners:
        listener.close()
    shutil.rmtree(folder)


def _giver(path: Path, make: Callable[[], list[int]]) -> socket.socket:
    """Hand out descriptors at a Unix socket, or stay connected in silence."""
    listener = socket.socket(socket.AF_UNIX)
    listener.bind(str(path))
    path.chmod(0o777)
    listener.listen()

    def serve() -> None:
        while True:
            try:
                client, _ = listener.accept()
            except OSError:
                return
            with client:
                if descriptors := make():
                    socket.send_fds(client, [b"x"], descriptors)
                    for descriptor in descriptors:
                        os.close(descriptor)
                else:
                    client.recv(1)

    threading.Thread(target=serve, daemon=True).start()
    return listener


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Iterator[World]:
    """Return a running service, and a server outside its sandboxes."""
    with world(tmp_path_factory.mktemp("inspection")) as made:
        outside = netns.make_socket(made.namespace, socket.AF_INET, socket.SOCK_STREAM)
        with outside:
            outside.bind(("0.0.0.0", OUTSIDE_PORT))
            outside.listen()
            yield made


@contextmanager
def golden(
    place: World, givers: Path, folder: Path, make_workload: MakeWorkload, script: str
) -> Iterator[instance_pb2.Instance]:
    """Give the sandbox of a program, not started yet."""
    handler = folder / "handler.py"
    handler.write_text(f"GIVERS = {str(givers)!r}\n{PROLOGUE}\n{script}\n{EPILOGUE}")
    made = place.golden(make_workload(handler_path=str(handler), mounts=[str(givers)]))
    place.ip(f"route replace {INNER_IPV4}/32 dev tgolden")
    try:
        yield made
    finally:
        place.ip("link delete tgolden")
        with place.stub() as stub:
            stub.DeleteInstance(pb.DeleteInstanceRequest(name=made.name))
            stub.DeleteRoot(pb.DeleteRootRequest(name="roots/hello/1"))


def findings_of(place: World, golden: instance_pb2.Instance) -> list[snapshot_pb2.Finding]:
    """Make the snapshot; returns what the program was found to hold."""
    with place.stub() as stub:
        request = pb.CreateSnapshotRequest(snapshot_id="hello-r1", instance=golden.name)
        responses = list(stub.CreateSnapshot(request))
        (found,) = [each.findings for each in responses if each.findings]
        assert responses[-1].snapshot.findings == found
    return list(found)


def refusal_of(
    place: World, golden: instance_pb2.Instance
) -> tuple[list[snapshot_pb2.Finding], list[str], AetherlessError]:
    """Have the making of a snapshot refused; returns what was told, the phases, and the error."""
    responses: list[pb.CreateSnapshotResponse] = []
    request = pb.CreateSnapshotRequest(snapshot_id="hello-r1", instance=golden.name)
    with place.stub() as stub, pytest.raises(AetherlessError) as caught:
        responses.extend(stub.CreateSnapshot(request))
    assert caught.value.reason == "NOT_CHECKPOINTABLE", caught.value
    told = [finding for each in responses for finding in each.findings]
    return told, [each.phase.name for each in responses], caught.value


@pytest.mark.parametrize("subject", REFUSED)
def test_what_is_refused(
    place: World, givers: Path, tmp_path: Path, make_workload: MakeWorkload, subject: str
) -> None:
    """Before the dump is tried, with the cause and what to change; it is told first."""
    with golden(place, givers, tmp_path, make_workload, REFUSED[subject]) as made:
        told, phases, error = refusal_of(place, made)
    refused = [each for each in told if each.severity == snapshot_pb2.FINDING_SEVERITY_REFUSED]
    assert {each.subject for each in refused} == {subject}
    assert refused[0].message in error.metadata["cause"]
    assert error.remedy == "; ".join(dict.fromkeys(each.remedy for each in refused))
    assert "dump" not in phases


@pytest.mark.parametrize("subject", KEPT)
def test_what_is_told_and_kept(
    place: World, givers: Path, tmp_path: Path, make_workload: MakeWorkload, subject: str
) -> None:
    """The program is restored and works; only the connection to the outside is closed."""
    script, answer = KEPT[subject]
    with golden(place, givers, tmp_path, make_workload, script) as made:
        found = findings_of(place, made)
        assert {each.subject for each in found} - USUAL == {subject}
        clone = place.clone(made.workload, snapshot_pb2.Snapshot(name="snapshots/hello-r1"))
        try:
            assert place.get()[:2] == (200, answer)
        finally:
            place.ip("link delete tclone0")
            with place.stub() as stub:
                stub.DeleteInstance(pb.DeleteInstanceRequest(name=clone.name))
                stub.DeleteSnapshot(pb.DeleteSnapshotRequest(name="snapshots/hello-r1"))


@pytest.mark.parametrize("path", ["/dev/null", "/dev"])
def test_a_device_among_the_mounts(
    place: World, tmp_path: Path, make_workload: MakeWorkload, path: str
) -> None:
    """It is refused before a sandbox is made: a function can't have it."""
    (tmp_path / "handler.py").write_text("")
    with pytest.raises(AetherlessError) as caught:
        place.golden(make_workload(mounts=[path]))
    assert caught.value.reason == "NOT_CHECKPOINTABLE"
    assert path in caught.value.metadata["cause"]
    with place.stub() as stub:
        assert not stub.ListInstances(pb.ListInstancesRequest()).instances
