# SPDX-License-Identifier: Apache-2.0
"""Peers in control groups attach, are refused, die, are detached; the service dies, comes back."""

from __future__ import annotations

import errno
import os
import signal
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_client import AttachRefusedError, attach
from aetherless_common import errors
from aetherless_ring.layout import Direction, Layout

from .asking import RING, WAIT_S, admit, create, detach, get, wait_detached

if TYPE_CHECKING:
    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.settings import Settings

pytestmark = pytest.mark.root
RECORD_HEAD = 16


def written(service: int) -> bytes:
    """Return the first bytes that a peer wrote, through the service's own descriptor."""
    folder = Path(f"/proc/{service}/fd")
    regions = [fd for fd in folder.iterdir() if str(fd.readlink()).startswith("/memfd:aether-c")]
    assert regions  # the memfd, and the copy that mmap keeps
    with regions[0].open("rb") as region:
        region.seek(Layout(RING).data_offset(Direction.FROM_PEER) + RECORD_HEAD)
        return region.read(5)


def test_a_folder_with_a_long_path(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """A side socket may lie deeper than a socket's address reaches; its sandbox sees it nearer."""
    folder = tmp_path / ("x" * 100)
    near = tmp_path / "near"
    with run_service():
        create(stub)
        path = admit(stub, folder)
        assert Path(path).is_socket()
        assert Path(path).stat().st_mode & 0o777 == 0o666
        near.symlink_to(folder)
        assert peer("f-r1-0").ask("attach", f"{near}/channel.sock")["generation"] == 1


def test_a_link_is_not_followed(run_service: Any, stub: IpcServiceStub, tmp_path: Path) -> None:
    """What is found in the folder is replaced, and a folder that is a link is refused."""
    victim = tmp_path / "victim"
    victim.write_text("")
    victim.chmod(0o600)
    folder = tmp_path / "channel"
    folder.mkdir()
    (folder / "channel.sock").symlink_to(victim)
    with run_service():
        create(stub)
        assert Path(admit(stub, folder)).is_socket()
        assert victim.stat().st_mode & 0o777 == 0o600
        detach(stub)
        (tmp_path / "link").symlink_to(folder)
        with pytest.raises(errors.FailedPrecondition) as caught:
            admit(stub, tmp_path / "link")
        assert (caught.value.reason, caught.value.metadata["errno"]) == (
            "REGION_INVALID",
            "ENOTDIR",
        )


def test_a_generation_is_stored_before_it_is_given(
    run_service: Any, stub: IpcServiceStub, settings: Settings, peer: Any, tmp_path: Path
) -> None:
    """A service after this one would give it again; who can't be noted is refused."""
    stored, away = settings.runtime_dir / "ipc", settings.runtime_dir / "away"
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        process = peer("f-r1-0")
        stored.rename(away)
        assert process.ask("attach", path) == {"refused": "CHANNEL_CLOSED"}
        away.rename(stored)
        given = process.ask("attach", path)["generation"]
        assert (stored / "c.generation").read_text() == f"{given}\n"


def test_a_count_that_was_not_written_is_none(
    run_service: Any, stub: IpcServiceStub, settings: Settings
) -> None:
    """A service that ended just after it made the file had given no number yet."""
    with run_service() as service:
        create(stub)
        service.kill()
        service.wait(WAIT_S)
    (settings.runtime_dir / "ipc" / "c.generation").touch(exist_ok=False)
    with run_service():
        assert get(stub).generation == 0


def test_a_peer_attaches_and_shares_memory(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """The service's region holds what the peer wrote; the next peer has a region of its own."""
    with run_service() as service:
        create(stub)
        path = admit(stub, tmp_path / "0")
        first = peer("f-r1-0/tree")
        assert first.ask("attach", path) == {"generation": 1, "ring_bytes": RING}
        assert get(stub).attached
        assert get(stub).admissions[0].pid == first.child.pid
        assert first.ask("write", "hello") == {}
        assert written(service.pid) == b"hello"
        first.child.kill()
        first.child.wait(WAIT_S)
        wait_detached(stub)
        assert peer("f-r1-0/tree").ask("attach", path)["generation"] == 2
        assert written(service.pid) == bytes(5)
        assert get(stub).generation == 2


def test_second_peer_is_refused_while_one_is_attached(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """A ring has one producer and one consumer; another instance has a ring of its own."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        first = peer("f-r1-0/tree")
        first.ask("attach", path)
        assert peer("f-r1-0/other").ask("attach", path) == {"refused": "CHANNEL_ATTACHED"}
        assert first.ask("write", "still mine") == {}
        assert get(stub).generation == 1
        further = admit(stub, tmp_path / "1", "f-r1-1")
        assert not get(stub).attached
        assert peer("f-r1-1/tree").ask("attach", further)["generation"] == 2
        assert [each.attached for each in get(stub).admissions] == [True, True]


@pytest.mark.parametrize(
    "instance",
    ["g-r1-0/tree", "f-r1-1/tree", "f-r1-golden", "f-r1-0-r1-0/tree", "xf-r1-0/tree", "f"],
)
def test_other_groups_are_refused(
    run_service: Any, stub: IpcServiceStub, peer: Any, instance: str, tmp_path: Path
) -> None:
    """Another function or instance, a similar name: none of them gets a descriptor."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        assert peer(instance).ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        assert not get(stub).attached


def test_another_orchestrator_and_the_host_are_refused(
    run_service: Any, stub: IpcServiceStub, peer: Any, settings: Settings, tmp_path: Path
) -> None:
    """The right instance below another orchestrator's group; root itself, outside of any."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        # Names no orchestrator can have, so that none on this host is disturbed.
        stranger = peer("f-r1-0/tree", f"aether-test-{settings.orchestrator_id}")
        assert stranger.ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        nested = peer(f"{settings.cgroup_name}/f-r1-0", f"aether-test-{settings.orchestrator_id}")
        assert nested.ask("attach", path) == {"refused": "PEER_NOT_ALLOWED"}
        with pytest.raises(AttachRefusedError, match="PEER_NOT_ALLOWED"):
            attach(path)


def test_region_is_sealed(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """A peer can't shrink the region under the service."""
    with run_service():
        create(stub)
        attached = peer("f-r1-0/tree")
        attached.ask("attach", admit(stub, tmp_path / "0"))
        assert attached.ask("shrink") == {"errno": errno.EPERM}


def test_delete_tells_the_peer(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """The region is marked closed, the sleeper woken, the word said, the socket removed."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        stub.DeleteChannel(pb.DeleteChannelRequest(name="channels/c"))
        assert attached.ask("wait") == {"closed": True, "woken": True, "said": ["closed"]}
        assert attached.ask("attach", path) == {"errno": errno.ENOENT}


def test_detach_and_admit_again(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """A detached instance is told, and can't connect until it is admitted again; both repeat."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        assert admit(stub, tmp_path / "0") == path
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        assert not detach(stub).admissions
        assert attached.ask("wait") == {"closed": True, "woken": True, "said": ["closed"]}
        assert attached.ask("attach", path) == {"errno": errno.ENOENT}
        assert not detach(stub).admissions
        assert admit(stub, tmp_path / "0") == path
        assert attached.ask("attach", path)["generation"] == 2


def test_a_peer_that_talks_is_cut_off(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """The control socket has no words for a peer; the channel is free again."""
    with run_service():
        create(stub)
        attached = peer("f-r1-0/tree")
        attached.ask("attach", admit(stub, tmp_path / "0"))
        answer = attached.ask("talk", "give me more")
        assert (answer["closed"], answer["woken"]) == (True, True)
        wait_detached(stub)


def test_restart_after_sigkill(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """The channel is there again; the peer sees the end, and attaches as the next generation."""
    with run_service() as service:
        create(stub)
        path = admit(stub, tmp_path / "0")
        admit(stub, tmp_path / "1", "f-r1-1")
        made = get(stub)
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        assert get(stub).generation == 1  # it is stored by now
        service.kill()
        service.wait(WAIT_S)
    (tmp_path / "1" / "channel.sock").unlink()
    (tmp_path / "1").rmdir()  # its instance ended while the service was away
    with run_service():
        again = get(stub)
        assert (again.generation, again.attached) == (1, False)
        assert (again.create_time, again.instance) == (made.create_time, made.instance)
        assert [each.socket_path for each in again.admissions] == [path]
        assert attached.ask("attach", path)["generation"] == 2


def test_sigterm_tells_the_peers(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """A service that ends closes its regions; the declarations stay for the next one."""
    with run_service() as service:
        create(stub)
        path = admit(stub, tmp_path / "0")
        attached = peer("f-r1-0/tree")
        attached.ask("attach", path)
        service.send_signal(signal.SIGTERM)
        assert service.wait(WAIT_S) == 0
        assert attached.ask("wait") == {"closed": True, "woken": True, "said": ["closed"]}
        assert attached.ask("attach", path) == {"errno": errno.ENOENT}
    with run_service():
        assert get(stub).generation == 1
        assert attached.ask("attach", path)["generation"] == 2


def test_many_attachments_leak_nothing(
    run_service: Any, stub: IpcServiceStub, peer: Any, tmp_path: Path
) -> None:
    """After 100 peers came and went the service has as many descriptors as after one."""
    with run_service() as service:
        create(stub)
        path = admit(stub, tmp_path / "0")
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
