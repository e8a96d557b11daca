# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""What ``aetherctl invoke`` sends, and what it writes of the answer."""

from __future__ import annotations

import io
import json
import subprocess
import sys
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.ipc.v1 import ipc_service_pb2, ipc_service_pb2_grpc
from aetherless_cli.main import run
from aetherless_common import status
from aetherless_common.errors import FailedPrecondition

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

    import grpc
    from unit.cli.conftest import Play

Out = pytest.CaptureFixture[bytes]


class Ipc(ipc_service_pb2_grpc.IpcServiceServicer):
    """Answers each call with its data backwards; one of "bad" fails."""

    def __init__(self) -> None:
        self.asked: list[ipc_service_pb2.InvokeRequest] = []

    def register(self, server: grpc.Server) -> None:
        """Add it to a server."""
        ipc_service_pb2_grpc.add_IpcServiceServicer_to_server(self, server)

    def Invoke(self, request: Any, context: Any) -> Any:
        """Answer one call."""
        self.asked.append(request)
        if request.data == b"bad":
            status.abort(context, FAILURE, "ipc.aetherless")
        return answer(request.data)

    def InvokeStream(self, requests: Any, context: Any) -> Iterator[Any]:
        """Answer all calls, the last one first."""
        for each in reversed(list(requests)):
            self.asked.append(each.call)
            response = ipc_service_pb2.InvokeStreamResponse(call_id=each.call_id)
            if each.call.data == b"bad":
                response.error.Pack(status.to_status(FAILURE, "ipc.aetherless"))
            else:
                response.response.CopyFrom(answer(each.call.data))
            yield response


FAILURE = FailedPrecondition("HANDLER_FAILED", "the handler failed: no luck", {"function": "f"})


# Ends while a thread waits for the second line of a standard input that stays open.
WAITS = """
import threading, time
from pathlib import Path
from aetherless.ipc.v1.ipc_service_pb2 import InvokeRequest
from aetherless_cli.streaming import _calls

calls = _calls(InvokeRequest())
assert next(calls).call.data == b"a"
reader = threading.Thread(target=next, args=(calls,), daemon=True)
reader.start()
state = Path(f"/proc/self/task/{reader.native_id}/syscall")
while not state.read_text().startswith("0 0x0 "):  # read(0, ...)
    time.sleep(0.001)
"""


def answer(data: bytes) -> ipc_service_pb2.InvokeResponse:
    """Return the answer to a call."""
    response = ipc_service_pb2.InvokeResponse(data=data[::-1], attempts=1, woke=True)
    response.elapsed.FromMicroseconds(1500)
    return response


@pytest.fixture
def ipc(play: Play) -> Ipc:
    """Play the ipc service."""
    played = Ipc()  # type: ignore[abstract] # plays a part
    play("ipc", played.register)
    return played


@pytest.fixture
def typed(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[io.FileIO]:
    """Give what is read as standard input."""
    with (tmp_path / "typed").open("w+b", buffering=0) as given:
        monkeypatch.setattr("sys.stdin", io.TextIOWrapper(given))
        yield given


def test_the_answer_is_written_as_it_is(ipc: Ipc, capfdbinary: Out, tmp_path: Path) -> None:
    """From a text, or a file, with what was asked for beside."""
    file = tmp_path / "data"
    file.write_bytes(b"\xff\n")
    assert run(["invoke", "f", "--data", "abc", "--method", "m", "--timeout", "1.5", "--wait"]) == 0
    assert run(["invoke", "f", "--file", str(file)]) == 0
    assert run(["invoke", "f"]) == 0
    assert capfdbinary.readouterr().out == b"cba\n\xff"
    first = ipc.asked[0]
    assert (first.function, first.method, first.wait_for_room) == ("functions/f", "m", True)
    assert first.timeout.ToMilliseconds() == 1500
    assert ipc.asked[2].data == b""


def test_standard_input_is_given(ipc: Ipc, capfdbinary: Out, typed: io.FileIO) -> None:
    """All of it, as it is."""
    typed.write(b"a\nb")
    typed.seek(0)
    assert run(["invoke", "f", "-"]) == 0
    assert capfdbinary.readouterr().out == b"b\na"


def test_for_programs_it_tells_more(ipc: Ipc, capfdbinary: Out, tmp_path: Path) -> None:
    """How often it was delivered, whether it woke, how long it took; bytes as base64."""
    file = tmp_path / "data"
    file.write_bytes(b"\xff")
    assert run(["invoke", "f", "--data", "ab", "-o", "json"]) == 0
    told = json.loads(capfdbinary.readouterr().out)
    assert told == {"function": "f", "data": "ba", "attempts": 1, "woke": True, "elapsed_ms": 1.5}
    assert run(["-o", "json", "invoke", "f", "--file", str(file)]) == 0
    assert json.loads(capfdbinary.readouterr().out)["data_base64"] == "/w=="


def test_errors_have_their_class(ipc: Ipc, capfdbinary: Out, tmp_path: Path) -> None:
    """What the handler said is on standard error; what is too much is not sent."""
    assert run(["invoke", "f", "--data", "bad"]) == 6
    printed = capfdbinary.readouterr()
    assert printed.out == b""
    assert b"HANDLER_FAILED: the handler failed: no luck" in printed.err
    file = tmp_path / "large"
    file.write_bytes(bytes((16 << 20) + 1))
    assert run(["invoke", "f", "--file", str(file)]) == 3
    assert b"PAYLOAD_TOO_LARGE" in capfdbinary.readouterr().err
    assert len(ipc.asked) == 1


@pytest.mark.parametrize(
    "arguments",
    [["--data", "a", "-"], ["--stream", "--data", "a"], ["--timeout", "0"], ["--file", "/nowhere"]],
)
def test_wrong_use(ipc: Ipc, arguments: list[str]) -> None:
    """It asks nothing of anybody."""
    assert run(["invoke", "f", *arguments]) == 2
    assert ipc.asked == []


def test_each_line_is_a_call(ipc: Ipc, capfdbinary: Out, typed: io.FileIO) -> None:
    """Answers come in the lines' order, and the first error is the status."""
    typed.write(b"ab\nbad\n\ncd")
    typed.seek(0)
    assert run(["invoke", "f", "--stream", "--method", "m"]) == 6
    printed = capfdbinary.readouterr()
    assert printed.out == b"ba\n\n\ndc\n"
    assert printed.err.count(b"no luck") == 1
    assert b"HANDLER_FAILED: line 2: the handler failed" in printed.err
    assert {call.method for call in ipc.asked} == {"m"}
    typed.seek(0)
    assert run(["invoke", "f", "--stream", "-o", "json"]) == 6
    told = [json.loads(line) for line in capfdbinary.readouterr().out.splitlines()]
    assert [each["line"] for each in told] == [1, 2, 3, 4]
    assert told[1]["error"]["reason"] == "HANDLER_FAILED"
    assert told[3]["data"] == "dc"


def test_an_interrupt_while_the_next_line_is_waited_for() -> None:
    """Python ends although gRPC's thread still reads: standard input is not read by its reader."""
    with subprocess.Popen([sys.executable, "-c", WAITS], stdin=subprocess.PIPE) as child:
        assert child.stdin is not None
        child.stdin.write(b"a\n")
        child.stdin.flush()
        assert child.wait(30) == 0
