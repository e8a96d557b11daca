# SPDX-License-Identifier: Apache-2.0
"""The ipc service as a process: its RPCs, real peers in control groups, deaths and restarts."""

from __future__ import annotations

import errno
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import channel_pb2
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from aetherless_ipc.attachment import Attachment, AttachRefusedError
from aetherless_ipc.broker import Broker, ipc_folder
from aetherless_ipc.servicer import IpcServicer
from aetherless_ring.layout import Direction, Layout

if TYPE_CHECKING:
    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
RING = 1 << 16
WAIT_S = 20.0


def create(stub: IpcServiceStub, name: str = "c", function: str = "f", size: int = RING) -> Any:
    """Create a channel."""
    channel = channel_pb2.Channel(function_id=function, buffer_size_bytes=size)
    request = pb.CreateChannelRequest(channel_id=name, channel=channel)
    return stub.CreateChannel(request).channel


def get(stub: IpcServiceStub, name: str = "c") -> Any:
    """Get a channel."""
    return stub.GetChannel(pb.GetChannelRequest(name=f"channels/{name}")).channel


def written(service: int) -> bytes:
    """Return the first bytes that a peer wrote, through the service's own descriptor."""
    folder = Path(f"/proc/{service}/fd")
    regions = [fd for fd in folder.iterdir() if str(fd.readlink()).startswith("/memfd:aether-c")]
    assert regions  # the memfd, and the copy that mmap keeps
    with regions[0].open("rb") as region:
        region.seek(Layout(RING).data_offset(Direction.FROM_PEER))
        return region.read(5)


def wait_detached(stub: IpcServiceStub) -> None:
    """Wait until the service has noticed that the peer is gone."""
    ends_at = time.monotonic() + WAIT_S
    while get(stub).attached:
        assert time.monotonic() < ends_at
        time.sleep(0.005)


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
    servicer = IpcServicer(settings)  # type: ignore[abstract]  # gRPC answers UNIMPLEMENTED
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


def test_longest_names_have_a_socket(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """A channel of 100 characters still has a path that a socket may have."""
    function = "f" * 64
    with run_service():
        made = create(stub, "x" * 100, function)
        assert len(made.socket_path.encode()) <= 107
        answer = peer(f"{function}-r1-golden").ask("attach", made.socket_path)
    assert answer["generation"] == 1


def test_a_peer_attaches_and_shares_memory(
    run_service: Any, stub: IpcServiceStub, peer: Any
) -> None:
    """The service's region holds what the peer wrote; the next peer has a region of its own."""
    with run_service() as service:
        path = create(stub).socket_path
        first = peer("f-r1-0/tree")
        assert first.ask("attach", path) == {"generation": 1, "ring_bytes": RING}
        assert get(stub).attached
        assert first.ask("write", "hello") == {}
        assert written(service.pid) == b"hello"
        first.child.kill()
        first.child.wait(WAIT_S)
        wait_detached(stub)
        assert peer("f-r2-golden/tree").ask("attach", path)["generation"] == 2
        assert written(service.pid) == bytes(5)
        assert get(stub).generation == 2


def test_second_peer_is_refused_while_one_is_attached(
    run_service: Any, stub: IpcServiceStub, peer: Any
) -> None:
    """A ring has one producer and one consumer."""
    with run_service():
        path = create(stub).socket_path
        first = peer("f-r1-0/tree")
        first.ask("attach", path)
        assert peer("f-r1-1/tree").ask("attach", path) == {"refused": "CHANNEL_ATTACHED"}
        assert first.ask("write", "still mine") == {}
        assert get(stub).generation == 1


@pytest.mark.parametrize(
    "instance",
    ["g-r1-0/tree", "f-r1-0-r1-0/tree", "f-rx-0/tree", "xf-r1-0/tree", "f", "f-r1-0extra"],
)
def test_other_groups_are_refused(
    run_service: Any, stub: IpcServiceStub, peer: Any, instance: str
) -> None:
    """Another function, a similar name, no instance at all: none of them gets a descriptor."""
    with run_service():
        path = create(stub).socket_path
        assert peer(instance).ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        assert not get(stub).attached


def test_another_orchestrator_and_the_host_are_refused(
    run_service: Any, stub: IpcServiceStub, peer: Any, settings: Settings
) -> None:
    """The right instance below another orchestrator's group; root itself, outside of any."""
    with run_service():
        path = create(stub).socket_path
        # Names no orchestrator can have, so that none on this host is disturbed.
        stranger = peer("f-r1-0/tree", f"aether-test-{settings.orchestrator_id}")
        assert stranger.ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        nested = peer(f"{settings.cgroup_name}/f-r1-0", f"aether-test-{settings.orchestrator_id}")
        assert nested.ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        with pytest.raises(AttachRefusedError, match="PEER_NOT_ALLOWED"):
            Attachment(Path(path))


def test_region_is_sealed(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """A peer can't shrink the region under the service."""
    with run_service():
        path = create(stub).socket_path
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        assert attached.ask("shrink") == {"errno": errno.EPERM}


def test_delete_tells_the_peer(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """The region is marked closed, the sleeper woken, the word said, the socket removed."""
    with run_service():
        path = create(stub).socket_path
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        stub.DeleteChannel(pb.DeleteChannelRequest(name="channels/c"))
        assert attached.ask("wait") == {"closed": True, "woken": True, "said": ["closed"]}
        assert attached.ask("attach", path) == {"errno": errno.ENOENT}


def test_a_peer_that_talks_is_cut_off(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """The control socket has no words for a peer; the channel is free again."""
    with run_service():
        path = create(stub).socket_path
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        answer = attached.ask("talk", "give me more")
        assert (answer["closed"], answer["woken"]) == (True, True)
        wait_detached(stub)


def test_restart_after_sigkill(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """The channel is there again; the peer sees the end, and attaches as the next generation."""
    with run_service() as service:
        made = create(stub)
        attached = peer("f-r1-0/tree")
        attached.ask("attach", made.socket_path)
        service.kill()
        service.wait(WAIT_S)
    with run_service():
        again = get(stub)
        assert (again.generation, again.attached) == (1, False)
        assert (again.create_time, again.socket_path) == (made.create_time, made.socket_path)
        assert attached.ask("attach", again.socket_path)["generation"] == 2


def test_sigterm_tells_the_peers(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """A service that ends closes its regions; the declarations stay for the next one."""
    with run_service() as service:
        path = create(stub).socket_path
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        service.send_signal(signal.SIGTERM)
        assert service.wait(WAIT_S) == 0
        assert attached.ask("wait") == {"closed": True, "woken": True, "said": ["closed"]}
    with run_service():
        assert get(stub).generation == 1


def test_cleanup_leaves_nothing(run_service: Any, stub: IpcServiceStub, settings: Settings) -> None:
    """--cleanup after a SIGKILL empties the runtime folder; while the service lives it refuses."""
    environment = os.environ | {
        "AETHER_RUNTIME_DIR": str(settings.runtime_dir),
        "AETHER_STATE_DIR": str(settings.state_dir),
    }
    command = [sys.executable, "-m", "aetherless_ipc", "--cleanup"]
    with run_service():
        create(stub)
        refused = subprocess.run(command, env=environment, check=False, timeout=WAIT_S)
        assert refused.returncode == errors.FailedPrecondition.exit_status
        assert get(stub).name == "channels/c"
    subprocess.run(command, env=environment, check=True, timeout=WAIT_S)
    assert list(settings.runtime_dir.iterdir()) == []
    subprocess.run(command, env=environment, check=True, timeout=WAIT_S)


def test_many_attachments_leak_nothing(run_service: Any, stub: IpcServiceStub, peer: Any) -> None:
    """After 100 peers came and went the service has as many descriptors as after one."""
    with run_service() as service:
        path = create(stub).socket_path
        attached = peer("f-r1-0/tree")

        def descriptors() -> int:
            wait_detached(stub)
            return len(os.listdir(f"/proc/{service.pid}/fd"))  # noqa: PTH208  # only the count

        counts = []
        for _ in range(100):
            attached.ask("attach", path)
            attached.ask("detach")
            counts.append(descriptors())
        assert counts[-1] == counts[0]
        assert get(stub).generation == 100


def test_damaged_declarations_are_typed(settings: Settings) -> None:
    """A file that somebody else wrote ends the start with DATA_LOSS and the file's path."""
    ipc_folder(settings).mkdir()
    (ipc_folder(settings) / "channels.json").write_text('[{"colour": 1}]')
    with pytest.raises(errors.DataLoss) as caught:
        Broker(settings).start()
    assert caught.value.reason == "STORE_CORRUPT"
    assert caught.value.metadata["path"].endswith("channels.json")
