# SPDX-License-Identifier: Apache-2.0
"""Copies of functions' folders through the real service: they stay until they are deleted."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import Aborted, InvalidArgument
from framework.snapshotter_world import World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

    MakeWorkload = Callable[..., instance_pb2.Workload]

pytestmark = pytest.mark.root


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def app(tmp_path: Path, make_workload: MakeWorkload) -> instance_pb2.Workload:
    """Return a function whose program is one file in a folder."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text("v1")
    return make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))


def make_golden(place: World, workload: instance_pb2.Workload) -> str:
    """Make a golden's sandbox, and return its name."""
    request = pb.CreateInstanceRequest(
        instance_id="hello-r1-golden", workload=workload, role=instance_pb2.INSTANCE_ROLE_GOLDEN
    )
    with place.stub() as stub:
        return stub.CreateInstance(request).instance.name


def roots(place: World, function_id: str = "") -> list[str]:
    """Return the names of the copies."""
    with place.stub() as stub:
        listed = stub.ListRoots(pb.ListRootsRequest(function_id=function_id)).roots
    return [each.name for each in listed]


def test_a_copy_outlives_what_used_it(place: World, app: instance_pb2.Workload) -> None:
    """A revision that is made again runs the files that it had, whatever became of them since."""
    golden = make_golden(place, app)
    assert roots(place) == roots(place, "hello") == ["roots/hello/1"]
    assert roots(place, "other") == []
    with place.stub() as stub:
        with pytest.raises(Aborted) as raised:
            stub.DeleteRoot(pb.DeleteRootRequest(name="roots/hello/1"))
        assert raised.value.reason == "OPERATION_IN_PROGRESS"
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=golden))
    Path(app.handler_path).write_text("v2")
    golden = make_golden(place, app)
    copy = place.settings.state_dir / "roots" / "hello" / "1" / "root" / "handler.py"
    assert copy.read_text() == "v1"
    with place.stub() as stub:
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=golden))


def test_the_last_copy_takes_the_id_range_with_it(place: World, app: instance_pb2.Workload) -> None:
    """Until then the copy's owner stays the function's; deleting what is gone is fine."""
    golden = make_golden(place, app)
    ranges = place.settings.state_dir / "id-ranges.json"
    with place.stub() as stub:
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=golden))
        assert "hello" in json.loads(ranges.read_text())
        for _ in range(2):
            stub.DeleteRoot(pb.DeleteRootRequest(name="roots/hello/1"))
            assert "hello" not in json.loads(ranges.read_text())
    assert roots(place) == []
    assert not (place.settings.state_dir / "roots" / "hello").exists()


@pytest.mark.parametrize("name", ["", "roots/hello", "roots/hello/0", "roots/../1", "roots/a/x"])
def test_other_names_are_refused(place: World, name: str) -> None:
    """Nothing but a copy's name leads to a folder that is removed."""
    with place.stub() as stub, pytest.raises(InvalidArgument):
        stub.DeleteRoot(pb.DeleteRootRequest(name=name))
    with place.stub() as stub, pytest.raises(InvalidArgument):
        stub.ListRoots(pb.ListRootsRequest(page_size=-1))
