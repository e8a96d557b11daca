# SPDX-License-Identifier: Apache-2.0
"""What a client says to what it is told, byte for byte: calls, and records of pipelines.

The bytes are put together here from docs/ipc.md's tables, not by a client.
"""

from __future__ import annotations

import struct
from typing import Any

REQUEST, RESPONSE, PING, PONG, CALL, OVER = 1, 2, 3, 4, 6, 7
TRACE = b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01"
FAR = 4102444800_000000000  # a deadline in the year 2100
Steps = list[str]


def request(
    number: int,
    data: bytes,
    method: str,
    *,
    deadline: int = 0,
    attempt: int = 1,
    trace: bytes = b"",
) -> str:
    """Return a request, or a call, in hexadecimal."""
    head = struct.pack("<QQIHH", number, deadline, attempt, len(trace), len(method))
    return (head + trace + method.encode() + data).hex()


def response(number: int, status: int, data: bytes = b"", stage: int = 0) -> str:
    """Return a response in hexadecimal."""
    return (struct.pack("<QII", number, status, stage) + data).hex()


def stage(name: str, number: int, inputs: int, outputs: int, method: str = "") -> str:
    """Return the step that declares a stage of the pipeline p."""
    told = f"pipeline=p stage={name} number={number} inputs={inputs} outputs={outputs}"
    return f"say stage {told} delivery=at-least-once method={method}"


def exchange(about: str, *steps: str) -> dict[str, Any]:
    """Return one exchange."""
    return {"about": about, "steps": list(steps)}


def calls() -> list[dict[str, Any]]:
    """Return what clients answer and ask on the channel."""
    anywhere = {"deadline": FAR, "trace": TRACE}
    asked = request(7, b"other/m data", "relay", **anywhere)  # type: ignore[arg-type]  # its own
    made = request(0, b"data", "other/m", **anywhere)[16:]  # type: ignore[arg-type]  # its own
    failures = {1: "HANDLER_FAILED", 2: "METHOD_NOT_FOUND", 4: "CALL_NOT_ALLOWED"}
    failures |= {5: "FUNCTION_NOT_FOUND", 6: "NOT_DELIVERED", 7: "RING_FULL"}
    ended = [
        exchange(
            f"a call that ends with status {status}",
            f"send {REQUEST} {asked}",
            f"called {made}",
            f"reply {response(0, status, b'why')[16:]}",
            f"expect {RESPONSE} {response(7, 0, reason.encode() + b' why')}",
        )
        for status, reason in failures.items()
    ]
    return [
        exchange(
            "a request",
            f"send {REQUEST} {request(1 << 63, b'data', 'echo')}",
            f"expect {RESPONSE} {response(1 << 63, 0, b'data')}",
        ),
        exchange(
            "what comes with a request",
            f"send {REQUEST} {request(1, b'', 'describe', attempt=3, trace=TRACE)}",
            f"expect {RESPONSE} {response(1, 0, b'3 ' + TRACE)}",
        ),
        exchange(
            "no such method, a deadline that has passed, a ping",
            f"send {REQUEST} {request(1, b'', 'nothing')}",
            f"expect {RESPONSE} {response(1, 2)}",
            f"send {REQUEST} {request(2, b'', 'echo', deadline=1)}",
            f"expect {RESPONSE} {response(2, 3)}",
            f"send {PING} {b'there?'.hex()}",
            f"expect {PONG} {b'there?'.hex()}",
        ),
        exchange(
            "a call",
            f"send {REQUEST} {asked}",
            f"called {made}",
            f"reply {response(0, 0, b'result')[16:]}",
            f"expect {RESPONSE} {response(7, 0, b'result')}",
        ),
        *ended,
    ]


def pipelines() -> list[dict[str, Any]]:
    """Return what stages do."""
    return [*stages(), *gatherings()]


def stages() -> list[dict[str, Any]]:
    """Return what stages with one input do."""
    return [
        exchange(
            "the first stage, with two outputs",
            stage("a", 0, 0, 2),
            "drain p/a/b",
            "drain p/a/c",
            f"send {REQUEST} {request(9, b'x', 'p/a', deadline=FAR, attempt=2, trace=TRACE)}",
            f"take p/a/b {request(9, b'x', 'p/b', deadline=FAR, attempt=2, trace=TRACE)}",
            f"take p/a/c {request(9, b'x', 'p/c', deadline=FAR, attempt=2, trace=TRACE)}",
            f"expect {RESPONSE} {response(9, 8, stage=1)}",
        ),
        exchange(
            "a stage between",
            stage("b", 1, 1, 1),
            "feed p/a/b 0",
            "drain p/b/c",
            f"put p/a/b {request(9, b'x', 'p/b', trace=TRACE)}",
            f"take p/b/c {request(9, b'x', 'p/c', trace=TRACE)}",
        ),
        exchange(
            "a stage that has no such method, and one that is too late",
            stage("d", 3, 1, 0, "nothing"),
            "feed p/c/d 0",
            f"put p/c/d {request(9, b'x', 'p/d')}",
            f"expect {RESPONSE} {response(9, 2, stage=4)}",
            f"put p/c/d {request(10, b'x', 'p/d', deadline=1)}",
            f"expect {RESPONSE} {response(10, 3, stage=4)}",
        ),
        exchange(
            "a stage that is not declared",
            f"send {REQUEST} {request(9, b'x', 'p/a')}",
            f"expect {RESPONSE} {response(9, 2)}",
        ),
    ]


def gatherings() -> list[dict[str, Any]]:
    """Return what stages with several inputs do."""
    joined = struct.pack("<II", 2, 3) + b"one" + struct.pack("<I", 3) + b"two"
    return [
        exchange(
            "the last stage, with two inputs",
            stage("d", 3, 2, 0),
            "feed p/b/d 0",
            "feed p/c/d 1",
            f"put p/c/d {request(9, b'two', 'p/d')}",
            f"put p/b/d {request(9, b'one', 'p/d')}",
            f"expect {RESPONSE} {response(9, 0, joined, 4)}",
        ),
        exchange(
            "a run that is over",
            stage("d", 3, 2, 0, "parts"),
            "feed p/b/d 0",
            "feed p/c/d 1",
            f"put p/c/d {request(9, b'two', 'p/d')}",
            f"send {OVER} {(9).to_bytes(8, 'little').hex()}",
            # So that it is read before the next part is.
            f"send {PING} {b'there?'.hex()}",
            f"expect {PONG} {b'there?'.hex()}",
            f"put p/b/d {request(9, b'one', 'p/d')}",
            f"put p/b/d {request(10, b'one', 'p/d', attempt=4)}",
            f"put p/c/d {request(10, b'two', 'p/d')}",
            f"expect {RESPONSE} {response(10, 0, b'4 one|two', 4)}",
        ),
    ]
