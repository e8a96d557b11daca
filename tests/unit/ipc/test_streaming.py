# SPDX-License-Identifier: Apache-2.0
"""InvokeStream: many calls under way, answered in any order, each once."""

from __future__ import annotations

import queue
from typing import TYPE_CHECKING, Any

import pytest
from google.rpc import status_pb2

from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common.status import from_status
from framework.processes import wait_until

from .asking import admit, call, create, get

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

pytestmark = pytest.mark.root


def asked(number: int, *arguments: Any, **named: Any) -> pb.InvokeStreamRequest:
    """Return the request for one call of a stream."""
    return pb.InvokeStreamRequest(call_id=number, call=call(*arguments, **named))


def reason(answer: pb.InvokeStreamResponse) -> str:
    """Return the reason of an error."""
    status = status_pb2.Status()
    assert answer.error.Unpack(status)
    return from_status(status).reason


def test_many_calls(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Far more than may be under way at once: all are answered, with what they asked for."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        requests = (
            asked(number, data=f"n{number}".encode(), patient=True) for number in range(5000)
        )
        answers = list(stub.InvokeStream(requests))
        assert sorted(answer.call_id for answer in answers) == list(range(5000))
        wrong = [each for each in answers if each.response.data != f"N{each.call_id}".encode()]
        assert not wrong


def test_any_order_and_errors(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """A slow call does not hold up others; each error is its own call's."""
    with run_service():
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "4")
        requests = [
            asked(1, method="sleep", data=b"2"),
            asked(2, data=b"quick"),
            asked(3, method="fail"),
            asked(4, "none"),
            asked(5, method="sleep", data=b"3", timeout=0.2),
        ]
        answers = list(stub.InvokeStream(iter(requests)))
        found = {answer.call_id: answer for answer in answers}
        assert found[2].response.data == b"QUICK"
        assert answers.index(found[2]) < answers.index(found[1])
        reasons = {number: reason(found[number]) for number in (3, 4, 5)}
        assert reasons == {
            3: "HANDLER_FAILED",
            4: "CHANNEL_NOT_FOUND",
            5: "INVOCATION_TIMEOUT",
        }


def test_a_caller_that_leaves(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Its calls are forgotten, and nothing of the stream stays."""
    with run_service() as service:
        create(stub)
        serving_peer(admit(stub, tmp_path / "0"), "handler", "1")
        wanted: queue.SimpleQueue[pb.InvokeStreamRequest | None] = queue.SimpleQueue()

        def requests() -> Iterator[pb.InvokeStreamRequest]:
            while (request := wanted.get()) is not None:
                yield request

        def threads() -> list[str]:
            folder = (tmp_path / "/proc" / str(service.pid) / "task").iterdir()
            names = [(task / "comm").read_text().strip() for task in folder]
            return [name for name in names if name == "invoke-stream"]

        answers = stub.InvokeStream(requests())
        wanted.put(asked(1, method="sleep", data=b"2"))
        wanted.put(asked(2, method="sleep", data=b"2"))
        wait_until(lambda: get(stub).stats.in_flight == 2, "both are in flight")
        answers.cancel()
        wait_until(lambda: get(stub).stats.cancelled == 2, "both are forgotten")
        wanted.put(None)
        assert stub.Invoke(call(data=b"next")).data == b"NEXT"
        wait_until(lambda: not threads(), "no thread stays")
