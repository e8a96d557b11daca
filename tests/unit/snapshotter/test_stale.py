# SPDX-License-Identifier: Apache-2.0
"""A library of the host changes: who relies on it is ended, and its snapshot refused."""

from __future__ import annotations

import os
import subprocess
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import AetherlessError, FailedPrecondition
from aetherless_snapshotter.manifest import sealed, unsealed
from framework.snapshotter_world import WAIT, World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root

HANDLER = """
import ctypes, os, socket

library = ctypes.CDLL(os.environ["LIBRARY"])
listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
while True:
    connection, _ = listener.accept()
    with connection:
        if connection.recv(65536):
            body = b"%d" % library.answer()
            head = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
            connection.sendall(head + body)
"""


class Library:
    """A shared library in a folder of the host that sandboxes see."""

    def __init__(self, folder: Path) -> None:
        self.path = folder / "libanswer.so"
        folder.mkdir()

    def install(self, answer: int) -> None:
        """Put a build of it in place of the last one, as a package manager does."""
        fresh = self.path.with_suffix(".new")
        source = f"int answer(void) {{ return {answer}; }}"
        command = ["gcc", "-shared", "-fPIC", "-Wl,--build-id", "-x", "c", "-", "-o", str(fresh)]
        subprocess.run(command, input=source.encode(), check=True, timeout=WAIT)
        os.replace(fresh, self.path)  # noqa: PTH105 - atomic, as the name says


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def library(tmp_path: Path) -> Library:
    """Return a library that answers 1."""
    made = Library(tmp_path / "libraries")
    made.install(1)
    return made


@pytest.fixture
def armed(
    place: World, library: Library, tmp_path: Path, make_workload: MakeWorkload
) -> instance_pb2.Instance:
    """Return an armed instance of a function that maps the library."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    workload = make_workload(
        handler_path=str(folder / "handler.py"),
        root_path=str(folder),
        mounts=[str(library.path.parent)],
        environment={"LIBRARY": str(library.path)},
    )
    return place.deploy(workload)


def wait_until_gone(place: World, instance: instance_pb2.Instance, reason: str) -> None:
    """Wait until watchers are told that an instance ended for a reason."""
    with place.stub() as stub:
        for response in stub.WatchInstances(pb.WatchInstancesRequest(), timeout=WAIT):
            told = response.instance
            if response.synced and not is_there(place, instance):
                return  # it went before the watch began; the log has why
            if told.name == instance.name and told.state == instance_pb2.INSTANCE_STATE_ENDED:
                assert told.end_reason.startswith(reason)
                return


def is_there(place: World, instance: instance_pb2.Instance) -> bool:
    """Tell whether an instance is listed."""
    with place.stub() as stub:
        listed = stub.ListInstances(pb.ListInstancesRequest()).instances
    return instance.name in [each.name for each in listed]


def refusal(place: World, armed: instance_pb2.Instance) -> FailedPrecondition:
    """Return what a new clone of an instance's snapshot is refused with."""
    request = pb.CreateInstanceRequest(
        instance_id="another", workload=armed.workload, role=armed.role, snapshot=armed.snapshot
    )
    with place.stub() as stub, pytest.raises(FailedPrecondition) as caught:
        stub.CreateInstance(request)
    return caught.value


def test_an_armed_one_is_ended(
    place: World, library: Library, armed: instance_pb2.Instance
) -> None:
    """Its snapshot is refused by name of the library, and made anew under the same name."""
    library.install(2)
    wait_until_gone(place, armed, "SNAPSHOT_STALE")
    error = refusal(place, armed)
    assert error.reason == "SNAPSHOT_STALE"
    assert error.metadata["file"] == str(library.path)
    assert error.metadata["expected"].startswith("build id ")
    anew = place.deploy(armed.workload)
    assert anew.name == armed.name
    assert place.get()[1] == b"2"


def test_a_wake_by_command_is_refused(
    place: World, library: Library, armed: instance_pb2.Instance
) -> None:
    """Nobody has to wait for the next look."""
    library.install(2)
    with place.stub() as stub, pytest.raises(AetherlessError) as caught:
        stub.WakeInstance(pb.WakeInstanceRequest(name=armed.name))
    assert caught.value.reason in {"SNAPSHOT_STALE", "INSTANCE_NOT_FOUND"}
    wait_until_gone(place, armed, "SNAPSHOT_STALE")


def test_a_running_one_goes_on(
    place: World, library: Library, armed: instance_pb2.Instance
) -> None:
    """It has mapped the old library; it is ended once it is armed again."""
    assert place.get()[1] == b"1"
    library.install(2)
    assert place.get()[1] == b"1"
    assert place.instance(armed.name).state == instance_pb2.INSTANCE_STATE_RUNNING
    with place.stub() as stub:
        stub.EvictInstance(pb.EvictInstanceRequest(name=armed.name))
    wait_until_gone(place, armed, "SNAPSHOT_STALE")


def test_a_library_that_is_installed_again(
    place: World, library: Library, armed: instance_pb2.Instance
) -> None:
    """The same build under another inode is no change."""
    library.install(1)
    assert place.get()[1] == b"1"
    with place.stub() as stub:
        stub.EvictInstance(pb.EvictInstanceRequest(name=armed.name))
        stub.WakeInstance(pb.WakeInstanceRequest(name=armed.name))
    assert place.get()[1] == b"1"


def test_a_change_while_the_service_was_away(
    place: World, library: Library, armed: instance_pb2.Instance
) -> None:
    """The next service ends the instance before it serves anybody."""
    place.stop()
    library.install(2)
    place.start()
    assert not is_there(place, armed)


def test_a_manifest_of_another_version(place: World, armed: instance_pb2.Instance) -> None:
    """The instance ends with the service that can read it; the snapshot is made anew."""
    place.stop()
    name = armed.snapshot.removeprefix("snapshots/")
    path = place.settings.snapshot_root / name / "manifest.json"
    path.write_text(sealed({**unsealed(path.read_text()), "format": 99}))
    place.start()
    assert not is_there(place, armed)
    assert refusal(place, armed).reason == "SNAPSHOT_INCOMPATIBLE"
    place.deploy(armed.workload)
    assert place.get()[1] == b"1"
