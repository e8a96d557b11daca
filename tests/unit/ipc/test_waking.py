# SPDX-License-Identifier: Apache-2.0
"""Instances that sleep are woken by calls; those that die are called again; each call ends once."""

from __future__ import annotations

import random
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from aetherless_common import errors
from framework.processes import wait_until

from .asking import WAIT_S, admit, call, create, get

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

    from .sleeping import Snapshotter

pytestmark = pytest.mark.root


def test_a_call_wakes(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """Many calls of one that sleeps wake it once, and say so; later ones do not."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        snapshotter.free.clear()
        with ThreadPoolExecutor(16) as pool:
            calls = [pool.submit(stub.Invoke, call(data=b"up")) for _ in range(16)]
            wait_until(lambda: get(stub).stats.waiting == 16, "all wait for the wake")
            snapshotter.free.set()
            answers = [each.result() for each in calls]
        assert [answer.data for answer in answers] == [b"UP"] * 16
        assert all(answer.woke for answer in answers)
        assert not stub.Invoke(call()).woke
        assert snapshotter.wakes == 1
        wait_until(lambda: snapshotter.touched, "its idle time begins anew")
        assert set(snapshotter.touched) == {"instances/f-r1-0"}


def test_a_long_call_keeps_it_awake(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """While a call is with it, the instance is touched again and again; afterwards no more."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(stub.Invoke, call(method="sleep", data=b"5"))
            wait_until(lambda: len(snapshotter.touched) >= 3, "it is touched again and again")
            assert not held.done()

        def rested() -> bool:
            before = len(snapshotter.touched)
            time.sleep(0.5)  # what is asserted is that nothing happens
            return len(snapshotter.touched) == before

        wait_until(rested, "it is left alone")


def test_what_the_snapshotter_refuses(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """Its error comes through as it is; the next call tries again."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        snapshotter.failure = errors.FailedPrecondition("RESTORE_FAILED", "no", {"cause": "x"})
        with pytest.raises(errors.FailedPrecondition) as caught:
            stub.Invoke(call())
        assert (caught.value.reason, caught.value.domain) == (
            "RESTORE_FAILED",
            "snapshotter.aetherless",
        )
        snapshotter.failure = None
        assert stub.Invoke(call()).woke


@pytest.mark.parametrize(
    "failure",
    [
        errors.NotFound("INSTANCE_NOT_FOUND", "gone"),
        errors.FailedPrecondition("SANDBOX_FAILED", "its init is gone"),
    ],
    ids=lambda failure: failure.reason,
)
def test_an_instance_that_is_being_replaced(
    failure: errors.AetherlessError,
    run_service: Any,
    stub: IpcServiceStub,
    snapshotter: Snapshotter,
    tmp_path: Path,
) -> None:
    """Calls wait for the next one, as long as they may."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        snapshotter.failure = failure
        with pytest.raises(errors.DeadlineExceeded) as caught:
            stub.Invoke(call(timeout=0.3))
        assert caught.value.reason == "INVOCATION_TIMEOUT"
        with ThreadPoolExecutor(1) as pool:
            waiting = pool.submit(stub.Invoke, call(data=b"up"))
            wait_until(lambda: get(stub).stats.waiting == 1, "it waits")
            snapshotter.failure = None
            assert waiting.result().data == b"UP"


def test_death_in_the_handler(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """The call is delivered again, as attempt 2, to the instance that was woken anew."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        answer = stub.Invoke(call(method="die"))
        assert (answer.data, answer.attempts) == (b"2", 2)
        assert snapshotter.wakes == 2
        assert get(stub).stats.redelivered == 1


def test_killed_at_random(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """While the peer is killed again and again, each of many calls has exactly its own answer."""
    seed = random.randrange(1 << 32)
    dice = random.Random(seed)
    done = threading.Event()

    def killer() -> int:
        kills = 0
        while not done.wait(dice.uniform(0.001, 0.4)):
            snapshotter.kill()
            kills += 1
        return kills

    with run_service() as service:
        create(stub)
        admit(stub, tmp_path / "0")

        def one(number: int) -> bool:
            data = f"n{number}-".encode() * (number % 700 + 1)
            request = call(data=data, timeout=60, patient=True)
            return stub.Invoke(request).data == data.upper()

        with ThreadPoolExecutor(25) as pool:
            killing = pool.submit(killer)
            try:
                assert all(pool.map(one, range(2000))), f"seed {seed}"
            finally:
                done.set()
        stats = get(stub).stats
        assert killing.result() > 0
        assert (stats.succeeded, stats.failed) == (2000, 0), f"seed {seed}"
        assert (stats.in_flight, stats.waiting) == (0, 0)
        assert service.poll() is None


def test_calls_keep_no_regions(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """Regions of peers that died are gone, though calls that met them ended with errors."""
    with run_service() as service:
        create(stub)
        admit(stub, tmp_path / "0")
        for _ in range(5):
            with pytest.raises(errors.FailedPrecondition):
                stub.Invoke(call(method="fail"))
            assert stub.Invoke(call(method="die")).attempts == 2

        def regions() -> int:
            maps = (tmp_path / "/proc" / str(service.pid) / "maps").read_text().splitlines()
            return sum("memfd:aether-c" in line for line in maps)

        wait_until(lambda: regions() <= 2, "only the one that is attached is mapped")


def test_service_restarts(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """A service that is killed comes back with its channels; the peer attaches anew."""
    with run_service() as service:
        create(stub)
        admit(stub, tmp_path / "0")
        assert stub.Invoke(call(data=b"one")).data == b"ONE"
        assert get(stub).generation == 1  # it is stored by now
        service.kill()
        service.wait(WAIT_S)
    with run_service():
        wait_until(lambda: get(stub).generation == 2, "the peer attaches anew")
        answer = stub.Invoke(call(data=b"two"))
        assert (answer.data, answer.woke) == (b"TWO", False)
        assert snapshotter.wakes == 1
        assert get(stub).generation == 2
