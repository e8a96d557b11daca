# SPDX-License-Identifier: Apache-2.0
"""The ipc service as a process: its RPCs, real peers in control groups, deaths and restarts."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import channel_pb2
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from aetherless_ipc.broker import Broker, ipc_folder
from aetherless_ipc.delivery import Surroundings
from aetherless_ipc.servicer import IpcServicer

from .asking import RING, WAIT_S, admit, create, get

if TYPE_CHECKING:
    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root


def test_rpcs(run_service: Any, stub: IpcServiceStub) -> None:
    """Create, repeat, get, list in pages, delete."""
    with run_service():
        made = create(stub, "b")
        assert made == create(stub, "b") == get(stub, "b")
        assert (made.name, made.function_id, made.attached) == ("channels/b", "f", False)
        assert made.buffer_size_bytes == RING
        assert made.region_size_bytes == 3 * 4096 + 2 * RING
        assert made.create_time.ToSeconds() > 0
        assert made.generation == 0
        assert made.timeout.seconds == 30
        assert create(stub, "a", size=0).buffer_size_bytes == 4194304
        first = stub.ListChannels(pb.ListChannelsRequest(page_size=1))
        second = stub.ListChannels(
            pb.ListChannelsRequest(page_size=1, page_token=first.next_page_token)
        )
        names = [channel.name for page in (first, second) for channel in page.channels]
        assert names == ["channels/a", "channels/b"]
        assert second.next_page_token == ""
        stub.DeleteChannel(pb.DeleteChannelRequest(name="channels/b"))
        with pytest.raises(errors.NotFound) as caught:
            get(stub, "b")
    assert caught.value.metadata == {"channel": "b"}
    assert caught.value.domain == "ipc.aetherless"


@pytest.mark.parametrize(
    ("name", "function", "size", "field"),
    [
        ("", "f", RING, "channel_id"),
        ("a/b", "f", RING, "channel_id"),
        ("x" * 101, "f", RING, "channel_id"),
        ("c", "", RING, "channel.function_id"),
        ("c", "f", RING + 1, "channel.buffer_size_bytes"),
        ("c", "f", 4096, "channel.buffer_size_bytes"),
        ("c", "f", 1 << 31, "channel.buffer_size_bytes"),
    ],
)
def test_wrong_requests(
    settings: Settings, name: str, function: str, size: int, field: str
) -> None:
    """The field is named; nothing is made."""
    servicer = IpcServicer(settings)
    channel = channel_pb2.Channel(function_id=function, buffer_size_bytes=size)
    with pytest.raises(errors.InvalidArgument) as caught:
        servicer.CreateChannel(
            pb.CreateChannelRequest(channel_id=name, channel=channel),
            None,  # type: ignore[arg-type]  # not looked at
        )
    assert caught.value.metadata["field"] == field


def test_other_properties_are_refused(run_service: Any, stub: IpcServiceStub) -> None:
    """The same id with another function or size is CHANNEL_EXISTS."""
    with run_service():
        create(stub)
        for function, size in (("g", RING), ("f", 2 * RING)):
            with pytest.raises(errors.AlreadyExists) as caught:
                create(stub, "c", function, size)
            assert caught.value.reason == "CHANNEL_EXISTS"


def test_changes(run_service: Any, stub: IpcServiceStub) -> None:
    """The fields that are named change, or those that are set; others are refused."""
    with run_service():
        create(stub)
        channel = channel_pb2.Channel(name="channels/c", instance="instances/f-r1-0")
        channel.timeout.FromMilliseconds(1500)
        request = pb.UpdateChannelRequest(channel=channel)
        changed = stub.UpdateChannel(request).channel
        assert (changed.instance, changed.timeout.ToMilliseconds()) == ("instances/f-r1-0", 1500)
        channel.may_call.extend(["b", "a", "b"])
        channel.instance = ""
        request = pb.UpdateChannelRequest(channel=channel)
        request.update_mask.paths.extend(["may_call", "instance"])
        changed = stub.UpdateChannel(request).channel
        assert (changed.instance, list(changed.may_call)) == ("", ["a", "b"])
        assert changed == get(stub)
        request.update_mask.paths.append("function_id")
        with pytest.raises(errors.InvalidArgument) as caught:
            stub.UpdateChannel(request)
        assert caught.value.metadata["field"] == "update_mask"


def test_cleanup_leaves_nothing(
    run_service: Any, stub: IpcServiceStub, settings: Settings, tmp_path: Path
) -> None:
    """--cleanup after a SIGKILL empties the runtime folder; while the service lives it refuses."""
    environment = os.environ | {
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-m", "aetherless_ipc", "--cleanup"]
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        refused = subprocess.run(command, env=environment, check=False, timeout=WAIT_S)
        assert refused.returncode == errors.FailedPrecondition.exit_status
        assert get(stub).name == "channels/c"
    subprocess.run(command, env=environment, check=True, timeout=WAIT_S)
    assert list(settings.runtime_dir.iterdir()) == []
    subprocess.run(command, env=environment, check=True, timeout=WAIT_S)


def test_damaged_declarations_are_typed(settings: Settings) -> None:
    """A file that somebody else wrote ends the start with DATA_LOSS and the file's path."""
    ipc_folder(settings).mkdir()
    (ipc_folder(settings) / "channels.json").write_text('[{"colour": 1}]')
    with pytest.raises(errors.DataLoss) as caught:
        Broker(settings, Surroundings(lambda _: False)).start()
    assert caught.value.reason == "STORE_CORRUPT"
    assert caught.value.metadata["path"].endswith("channels.json")


def test_all_threads_stay_on_one_core(run_service: Any, stub: IpcServiceStub) -> None:
    """Each thread of the service, gRPC's too, runs on the same core and on no other."""
    with run_service() as process:
        create(stub, "c")
        cores = {
            frozenset(os.sched_getaffinity(int(thread.name)))
            for thread in Path(f"/proc/{process.pid}/task").iterdir()
        }
    assert [len(core) for core in cores] == [1]
