# SPDX-License-Identifier: Apache-2.0
"""Trial restores: what they measure, what they refuse, and that nothing of them is left."""

from __future__ import annotations

import signal
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING

import pytest

from aetherless.snapshotter.v1 import instance_pb2, snapshot_pb2
from aetherless.snapshotter.v1 import snapshotter_service_pb2 as pb
from aetherless_common.errors import Aborted, AetherlessError, DeadlineExceeded, FailedPrecondition
from aetherless_snapshotter import netns, processes, trial
from framework.processes import wait_until
from framework.snapshotter_world import WAIT, World, world

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    from aetherless.snapshotter.v1 import snapshotter_service_pb2_grpc as pb_grpc

    MakeWorkload = Callable[..., instance_pb2.Workload]

ETHERTYPE_IPV4 = 0x0800
#: Answers with the number of requests it served, what it finds written, and writes; a request after
#: the first, the golden's warm-up, is spoiled as the variable SPOIL says.
HANDLER = """
import os, socket, time

listener = socket.create_server(("0.0.0.0", int(os.environ["PORT"])))
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
served = 0
while True:
    connection, _ = listener.accept()
    with connection:
        if not connection.recv(65536):
            continue
        served += 1
        if served > 1 and os.environ.get("SPOIL") == "exit":
            os._exit(7)
        if served > 1 and os.environ.get("SPOIL") == "hang":
            time.sleep(3600)
        try:
            datagrams.sendto(b"out", ("203.0.113.9", 9))
        except OSError:
            pass
        with open("written", "a+") as file:
            file.write("x")
            file.seek(0)
            body = f"{served} {file.read()}".encode()
        head = b"HTTP/1.0 200 OK\\r\\nContent-Length: %d\\r\\n\\r\\n" % len(body)
        connection.sendall(head + body)
"""


@pytest.fixture
def place(tmp_path: Path) -> Iterator[World]:
    """Return a running service."""
    with world(tmp_path) as made:
        yield made


@pytest.fixture
def counter(tmp_path: Path, make_workload: MakeWorkload) -> instance_pb2.Workload:
    """Return a function that counts its requests, in memory and in a file."""
    folder = tmp_path / "app"
    folder.mkdir()
    (folder / "handler.py").write_text(HANDLER)
    return make_workload(handler_path=str(folder / "handler.py"), root_path=str(folder))


def prepared(place: World, workload: instance_pb2.Workload) -> instance_pb2.Instance:
    """Go the way of a deploy up to the trial."""
    _, snapshot = place.checkpoint(place.golden(workload))
    assert not snapshot.HasField("trial")
    return place.unarmed(workload, snapshot)


def attempt(place: World, instance: instance_pb2.Instance, **fields: object) -> snapshot_pb2.Trial:
    """Try restores."""
    request = pb.TryInstanceRequest(name=instance.name, **fields)  # type: ignore[arg-type]
    with place.stub() as stub:
        return stub.TryInstance(request).trial


def kept(place: World, instance: instance_pb2.Instance) -> snapshot_pb2.Snapshot:
    """Return the snapshot of a clone, as it is told alone and in the list."""
    with place.stub() as stub:
        alone = stub.GetSnapshot(pb.GetSnapshotRequest(name=instance.snapshot)).snapshot
        (listed,) = stub.ListSnapshots(pb.ListSnapshotsRequest()).snapshots
    assert listed == alone
    return alone


@contextmanager
def ear(place: World, link: str = "tclone0") -> Iterator[socket.socket]:
    """Hear what a sandbox sends to the outside by IPv4."""
    kind, protocol = socket.SOCK_DGRAM, socket.htons(ETHERTYPE_IPV4)
    with netns.make_socket(place.namespace, socket.AF_PACKET, kind, protocol) as heard:
        heard.bind((link, ETHERTYPE_IPV4))
        heard.settimeout(0)
        yield heard


@pytest.mark.root
def test_a_trial_is_measured_and_kept(place: World, counter: instance_pb2.Workload) -> None:
    """Ten restores, one answer; kept with the snapshot over restarts of the service."""
    instance = prepared(place, counter)
    measured = attempt(place, instance)
    times = [each.ToNanoseconds() for each in measured.restores]
    assert len(times) == trial.RESTORES
    assert min(times) > 0
    assert measured.maximum.ToNanoseconds() == max(times)
    assert min(times) <= measured.median.ToNanoseconds() <= max(times)
    assert measured.first_answer.ToNanoseconds() > times[0]
    assert measured.suggested_timeout.ToNanoseconds() > max(times)
    assert kept(place, instance).trial == measured
    assert place.instance(instance.name).state == instance_pb2.INSTANCE_STATE_CREATED
    place.stop(signal.SIGKILL)
    place.start()
    assert kept(place, instance).trial == measured


@pytest.mark.root
def test_nothing_of_a_trial_is_left(place: World, counter: instance_pb2.Workload) -> None:
    """The served instance has neither memory nor files of a trial; nothing of it went outside."""
    instance = prepared(place, counter)
    with ear(place) as heard:
        assert len(attempt(place, instance, restores=3).restores) == 3
        with pytest.raises(BlockingIOError):
            heard.recv(2048)
        assert processes.children(instance.init_pid) == []
        place.arm(instance)
        assert place.get()[1] == b"2 xx"  # the golden's warm-up was the first request
        assert b"out" in iter(lambda: heard.recv(2048)[-3:], b"")
    assert place.instance(instance.name).wakes == 1


@pytest.mark.root
def test_a_limit_that_is_not_met(place: World, counter: instance_pb2.Workload) -> None:
    """The longest restore counts; the error tells the times and the limit that would do."""
    counter.restore_timeout.FromMilliseconds(1)
    instance = prepared(place, counter)
    with pytest.raises(DeadlineExceeded) as caught:
        attempt(place, instance, restores=3)
    told = caught.value.metadata
    assert caught.value.reason == "RESTORE_LATENCY_VIOLATION"
    assert (told["function"], told["limitMs"]) == ("hello", "1")
    assert 1 < float(told["medianMs"]) <= float(told["maxMs"]) < float(told["suggestedMs"])
    assert told["suggestedMs"] in told["remedy"]
    assert not kept(place, instance).HasField("trial")
    measured = attempt(place, instance, restores=1, ignore_limit=True)
    assert kept(place, instance).trial == measured


@pytest.mark.root
@pytest.mark.parametrize(
    ("spoil", "cause"),
    [("exit", "it ended with status 7"), ("hang", "it gave no answer")],
)
def test_a_restored_program_must_answer(
    place: World, counter: instance_pb2.Workload, spoil: str, cause: str
) -> None:
    """A snapshot whose program does not answer is refused; its sandbox is not used again."""
    counter.environment["SPOIL"] = spoil
    counter.timeout.FromMilliseconds(3000)
    instance = prepared(place, counter)
    with pytest.raises(FailedPrecondition) as caught:
        attempt(place, instance)
    assert caught.value.reason == "RESTORE_FAILED"
    assert cause in caught.value.metadata["cause"]
    assert place.instance(instance.name).state == instance_pb2.INSTANCE_STATE_TRYING
    with place.stub() as stub:
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=instance.name))


@pytest.mark.root
def test_a_service_killed_in_a_trial(place: World, counter: instance_pb2.Workload) -> None:
    """A sandbox in which a restore was tried may hold anything: it is removed, and made anew."""
    counter.environment["SPOIL"] = "hang"
    instance = prepared(place, counter)
    outcome: list[AetherlessError] = []

    def run() -> None:
        with pytest.raises(AetherlessError) as caught:
            attempt(place, instance)
        outcome.append(caught.value)

    thread = threading.Thread(target=run)
    thread.start()
    until = time.monotonic() + WAIT
    while "python" not in " ".join(commands(instance.init_pid)):
        assert time.monotonic() < until
        time.sleep(0.01)
    place.stop(signal.SIGKILL)
    thread.join(WAIT)
    place.start()
    assert [error.code for error in outcome] == ["UNAVAILABLE"]
    assert processes.children(instance.init_pid) == []
    with place.stub() as stub:
        assert not stub.ListInstances(pb.ListInstancesRequest()).instances
    again = place.unarmed(counter, kept(place, instance))
    assert again.state == instance_pb2.INSTANCE_STATE_CREATED


@pytest.mark.root
def test_a_trial_that_is_given_up(place: World, counter: instance_pb2.Workload) -> None:
    """Cancelled while a restored program is waited for: it is ended, and the sandbox is free."""
    counter.environment["SPOIL"] = "hang"
    counter.timeout.FromSeconds(600)
    instance = prepared(place, counter)
    with place.stub() as stub:
        call = stub.TryInstance.future(pb.TryInstanceRequest(name=instance.name))
        wait_until(lambda: "python" in " ".join(commands(instance.init_pid)), "it runs", WAIT)
        call.cancel()
        wait_until(lambda: not processes.children(instance.init_pid), "it is ended", WAIT)
        assert place.instance(instance.name).state == instance_pb2.INSTANCE_STATE_TRYING
        wait_until(lambda: deleted(stub, instance), "nobody works on it", WAIT)
    assert not kept(place, instance).HasField("trial")


def deleted(stub: pb_grpc.SnapshotterServiceStub, instance: instance_pb2.Instance) -> bool:
    """Try to delete an instance; false while a call works on it."""
    try:
        stub.DeleteInstance(pb.DeleteInstanceRequest(name=instance.name))
    except Aborted:
        return False
    return True


def commands(init_pid: int) -> list[str]:
    """Return the commands of an init's children."""
    found = []
    for pid in processes.children(init_pid):
        try:
            found.append((processes.PROC / str(pid) / "comm").read_text())
        except (FileNotFoundError, ProcessLookupError):
            continue
    return found


@pytest.mark.root
def test_who_is_not_tried(place: World, counter: instance_pb2.Workload) -> None:
    """A golden, an armed clone, and more restores than a call may ask for."""
    golden = place.golden(counter)
    with pytest.raises(FailedPrecondition) as caught:
        attempt(place, golden)
    assert caught.value.reason == "INVALID_STATE_TRANSITION"
    _, snapshot = place.checkpoint(golden)
    armed = place.clone(counter, snapshot)
    with pytest.raises(FailedPrecondition) as caught:
        attempt(place, armed)
    assert caught.value.metadata["from"] == "ARMED"
    for restores in (-1, trial.MOST_RESTORES + 1):
        with pytest.raises(AetherlessError) as refused:
            attempt(place, armed, restores=restores)
        assert refused.value.metadata["field"] == "restores"
    assert place.get()[0] == 200


def test_the_limit_that_would_do() -> None:
    """It leaves room above the longest restore, and above twice the median."""
    assert trial.suggested_ms([10_000_000]) == 20
    assert trial.suggested_ms([2_000_000, 2_000_000, 10_000_000]) == 15
    assert trial.suggested_ms([8_000_000, 8_000_000, 9_000_000]) == 16


def test_near_the_limit_is_no_refusal() -> None:
    """Only a restore above the limit refuses; twice the median above it warns."""
    workload = instance_pb2.Workload(function_id="f")
    workload.restore_timeout.FromMilliseconds(15)
    measured = snapshot_pb2.Trial()
    measured.median.FromMilliseconds(8)
    measured.maximum.FromMilliseconds(15)
    trial.hold_to_limit(workload, measured)
    measured.maximum.FromMicroseconds(15_001)
    with pytest.raises(DeadlineExceeded):
        trial.hold_to_limit(workload, measured)
