# SPDX-License-Identifier: Apache-2.0
"""Functions that call others in ways that no library does: nobody else is the worse for it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import channel_pb2
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from aetherless_common.server import serving
from aetherless_ipc.edge import MOST_REGIONS
from framework.processes import wait_until

from .asking import admit, call, create, get
from .staging import Stages, declared

if TYPE_CHECKING:
    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

    from .sleeping import Snapshotter

pytestmark = pytest.mark.root
RING = 1 << 20
WAYS = ("strange-trace", "line-in-trace", "strange-method")


def hostile(stub: IpcServiceStub, starting_peer: Any, folder: Path, way: str) -> Any:
    """Make a function that may call the channel c, and have it do its worst."""
    create(stub, "a", "a", RING)
    channel = channel_pb2.Channel(name="channels/a", may_call=["c"])
    stub.UpdateChannel(pb.UpdateChannelRequest(channel=channel))
    return starting_peer(admit(stub, folder, "a-r1-0", "a"), "hostile", way, instance="a-r1-0")


@pytest.mark.parametrize("way", WAYS)
def test_a_call_of_one_that_sleeps(
    way: str,
    run_service: Any,
    stub: IpcServiceStub,
    starting_peer: Any,
    snapshotter: Snapshotter,
    tmp_path: Path,
) -> None:
    """What is no trace context and no name of a method wakes the function, and no more."""
    with run_service():
        create(stub, size=RING)
        admit(stub, tmp_path / "0")
        hostile(stub, starting_peer, tmp_path / "a", way)
        wait_until(lambda: get(stub, "a").stats.calls_made == 1, "its call was taken")
        assert stub.Invoke(call(data=b"next")).data == b"NEXT"
        wait_until(lambda: get(stub).stats.in_flight == 0, "nothing is left of it")
        wait_until(lambda: get(stub).stats.calls == 2, "both are counted")


def test_answers_that_are_not_read(
    run_service: Any, stub: IpcServiceStub, starting_peer: Any, tmp_path: Path
) -> None:
    """Of the answers to a flood of calls, no more are kept than one may have under way."""
    with run_service():
        hostile(stub, starting_peer, tmp_path / "a", "flood")
        wait_until(lambda: get(stub, "a").stats.calls_made == 20_000, "the flood was taken")
        in_ring = RING // 128  # the length of each answer in it
        most = in_ring + 1024
        wait_until(lambda: get(stub, "a").stats.dropped_answers >= 20_000 - most, "they go")


@pytest.mark.parametrize("instance", ["a-r1-0", "b-r1-0"], ids=["its own", "another's"])
def test_who_connects_all_the_time(
    instance: str,
    run_service: Any,
    stub: IpcServiceStub,
    starting_peer: Any,
    serving_peer: Any,
    tmp_path: Path,
) -> None:
    """It has to wait, let in or refused; others attach and are called meanwhile."""
    with run_service():
        create(stub, "a", "a", RING)
        path = admit(stub, tmp_path / "a", "a-r1-0", "a")
        looping = starting_peer(path, "hostile", "connect", instance=instance)
        looping.child.stdout.readline()
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        for _ in range(100):
            assert stub.Invoke(call(data=b"x", timeout=10)).data == b"X"
        # Left to itself it would take far less: 50 come at once, and the others ten a second.
        assert float(looping.child.stdout.readline()) > 0.5
        looping.child.kill()
        again = starting_peer(path, "handler", "1", instance="a-r1-0")
        wait_until(lambda: get(stub, "a").attached, "it is let in once nobody else comes")
        assert again.child.poll() is None


def test_a_doorbell_that_is_read_by_its_peer(
    run_service: Any, stub: IpcServiceStub, starting_peer: Any, serving_peer: Any, tmp_path: Path
) -> None:
    """The thread that serves all rings does not wait for one: deadlines of others are kept."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        hostile(stub, starting_peer, tmp_path / "a", "doorbell")
        wait_until(lambda: get(stub, "a").attached, "it is attached")
        for _ in range(20):
            asked = pb.InvokeStreamRequest(call=call(data=b"x", timeout=5))
            (answer,) = stub.InvokeStream(iter([asked]), timeout=20)
            assert answer.response.data == b"X"


def test_a_doorbell_that_is_full(
    run_service: Any, stub: IpcServiceStub, starting_peer: Any, serving_peer: Any, tmp_path: Path
) -> None:
    """Neither a call nor a detach waits for a peer that takes O_NONBLOCK away and fills it."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        hostile(stub, starting_peer, tmp_path / "a", "full-doorbell")
        wait_until(lambda: get(stub, "a").attached, "it is attached")
        for _ in range(3):
            with pytest.raises(errors.DeadlineExceeded):
                stub.Invoke(call("a", timeout=0.3), timeout=10)
        stub.DeleteChannel(pb.DeleteChannelRequest(name="channels/a"), timeout=10)
        assert stub.Invoke(call(data=b"x"), timeout=10).data == b"X"


def test_regions_that_look_as_if_they_were_in_use(
    run_service: Any,
    settings: Settings,
    stub: IpcServiceStub,
    starting_peer: Any,
    serving_peer: Any,
    tmp_path: Path,
) -> None:
    """A stage that comes and goes leaves some of them, to the service and to who reads of it."""
    stages = Stages(stub, serving_peer, tmp_path)  # type: ignore[abstract]  # it wakes, no more
    with serving(settings, "snapshotter", stages), run_service() as service:
        for name in "ab":
            stages.admit(name)
        pipeline = declared({"a": "", "b": "a"})
        stub.CreatePipeline(pb.CreatePipelineRequest(pipeline_id="p", pipeline=pipeline))
        stages.wake("b")
        wild = starting_peer(stages.paths["a"], "hostile", "regions", instance="a-r1-0")
        for _ in range(3 * MOST_REGIONS):
            assert wild.child.stdout.readline()
        wild.child.kill()
        wait_until(lambda: not get(stub, "a").attached, "it is gone")
        wait_until(lambda: regions(stages.pid("b")) <= MOST_REGIONS, "its reader lets go")
        assert regions(service.pid) <= 2 * MOST_REGIONS, "each is mapped twice"
        stages.wake("a")
        assert stages.run() == "x a b"


def regions(pid: int) -> int:
    """Return how many regions of the pipeline a process has mapped."""
    return (Path("/proc") / str(pid) / "maps").read_text().count("/memfd:aether-p/")
