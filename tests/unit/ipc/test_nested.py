# SPDX-License-Identifier: Apache-2.0
"""Functions that call functions through their own rings: what may be called, and how it ends."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import channel_pb2
from aetherless.ipc.v1 import ipc_service_pb2 as pb
from aetherless_common import errors
from framework.processes import wait_until

from .asking import RING, admit, call, create, get

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub

pytestmark = pytest.mark.root
RESULT, FAILED, NO_METHOD, TOO_LATE, NOT_ALLOWED, NO_FUNCTION, NOT_DELIVERED, NO_ROOM = range(8)


def two_functions(stub: IpcServiceStub, serving_peer: Any, folder: Path) -> Any:
    """Make function a, which may call b and c, and function b; return the process of a."""
    for name in "ab":
        create(stub, name, name)
    channel = channel_pb2.Channel(name="channels/a", may_call=["b", "c"])
    stub.UpdateChannel(pb.UpdateChannelRequest(channel=channel))
    path = admit(stub, folder / "b", "b-r1-0", "b")
    serving_peer(path, "handler", "2", instance="b-r1-0")
    path = admit(stub, folder / "a", "a-r1-0", "a")
    return serving_peer(path, "calling", instance="a-r1-0")


def made(process: Any, *wanted: tuple[str, str, float]) -> list[tuple[int, str]]:
    """Have calls made at once: method, data, seconds to the deadline; return how they ended."""
    process.child.stdin.write(json.dumps(wanted) + "\n")
    process.child.stdin.flush()
    return [(status, text) for status, text in json.loads(process.child.stdout.readline())]


def test_how_calls_end(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """A result, a handler's failure, no such method, too late, not allowed, no such function."""
    with run_service():
        process = two_functions(stub, serving_peer, tmp_path)
        ends = made(
            process,
            ("b", "hello", 10),
            ("b/fail", "", 10),
            ("b/none", "", 10),
            ("b/sleep", "2", 0.2),
            ("a", "", 10),
            ("c", "", 10),
            ("b/blow", str(RING // 8), 10),
            ("b/pipeline/stage", "", 10),
        )
        assert ends[0] == (RESULT, "HELLO")
        assert ends[1] == (FAILED, "ValueError: not like this")
        assert [status for status, _ in ends[2:6]] == [
            NO_METHOD,
            TOO_LATE,
            NOT_ALLOWED,
            NO_FUNCTION,
        ]
        assert ends[6] == (RESULT, "\0" * (RING // 8))
        assert ends[7] == (NOT_DELIVERED, "method must have no slash")
        with pytest.raises(errors.InvalidArgument, match="must have no slash"):
            stub.Invoke(call("b", method="pipeline/stage"))
        assert get(stub, "a").stats.calls_made == 8
        assert get(stub, "b").stats.calls == 5


def test_many_calls(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """Hundreds at once, while the function is called itself: each has its own answer."""
    with run_service():
        process = two_functions(stub, serving_peer, tmp_path)
        wanted = [("b", f"x{number}" * 50, 30.0) for number in range(500)]
        ends = made(process, *wanted)
        assert ends == [(RESULT, data.upper()) for _, data, _ in wanted]


def test_the_caller_ends(
    run_service: Any, stub: IpcServiceStub, serving_peer: Any, tmp_path: Path
) -> None:
    """What a function asked for is forgotten with it."""
    with run_service():
        process = two_functions(stub, serving_peer, tmp_path)
        process.child.stdin.write(json.dumps([("b/sleep", "5", 20)]) + "\n")
        process.child.stdin.flush()
        wait_until(lambda: get(stub, "b").stats.in_flight == 1, "its call is in flight")
        # SAFETY: the test's own child, by its handle.
        process.child.kill()
        wait_until(lambda: get(stub, "b").stats.cancelled == 1, "its call is forgotten")
        assert stub.Invoke(call("b", b"next")).data == b"NEXT"
