# SPDX-License-Identifier: Apache-2.0
"""Instances that are detached while they are called: before a checkpoint, before an eviction."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from framework.processes import wait_until

from .asking import WAIT_S, admit, call, create, detach, get

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

    from .sleeping import Snapshotter

pytestmark = pytest.mark.root


def test_detach_waits_for_answers(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """What is in flight is waited for; what comes later waits for the next attachment."""
    with run_service():
        create(stub)
        path = admit(stub, tmp_path / "0")
        stub.Invoke(call())
        with ThreadPoolExecutor(2) as pool:
            first = pool.submit(stub.Invoke, call(method="sleep", data=b"2"))
            wait_until(lambda: get(stub).stats.in_flight == 1, "it is in flight")
            detach(stub)
            assert first.result(WAIT_S).attempts == 1
            second = pool.submit(stub.Invoke, call(data=b"later"))
            wait_until(lambda: get(stub).stats.waiting == 1, "it waits")
            assert admit(stub, tmp_path / "0") == path
            assert second.result(WAIT_S).data == b"LATER"


def test_detach_gives_up(
    run_service: Any, stub: IpcServiceStub, snapshotter: Snapshotter, tmp_path: Path
) -> None:
    """When the time is over the instance stays admitted and attached; by force it is not."""
    with run_service():
        create(stub)
        admit(stub, tmp_path / "0")
        stub.Invoke(call())
        request = pb.DetachInstanceRequest(channel="channels/c", instance="instances/f-r1-0")
        request.drain_timeout.FromMilliseconds(100)
        with ThreadPoolExecutor(1) as pool:
            held = pool.submit(stub.Invoke, call(method="sleep", data=b"3"))
            wait_until(lambda: get(stub).stats.in_flight == 1, "it is in flight")
            with pytest.raises(errors.FailedPrecondition) as caught:
                stub.DetachInstance(request)
            assert (caught.value.reason, caught.value.metadata["calls"]) == ("CALLS_IN_FLIGHT", "1")
            assert get(stub).attached
            request.force = True
            assert not stub.DetachInstance(request).channel.admissions
            wait_until(lambda: get(stub).stats.waiting == 1, "it waits for the next attachment")
            admit(stub, tmp_path / "0")
            assert held.result(WAIT_S).attempts == 2
            assert snapshotter.wakes == 1
