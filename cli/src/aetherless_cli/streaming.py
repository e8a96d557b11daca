# SPDX-License-Identifier: Apache-2.0
"""Many calls at once: a line of standard input is a call, and its answer is a line."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING

from google.rpc import status_pb2

from aetherless.ipc.v1 import ipc_service_pb2 as messages
from aetherless_cli.following import followed
from aetherless_cli.invocation import plain
from aetherless_cli.output import error_data, print_error
from aetherless_common.status import from_status

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless.ipc.v1.ipc_service_pb2_grpc import IpcServiceStub
    from aetherless_common.errors import AetherlessError


def stream_lines(ipc: IpcServiceStub, request: messages.InvokeRequest, form: str) -> None:
    """Call a function with each line of standard input; write the answers in the lines' order.

    With ``form`` "table" an answer is its bytes and a newline, and an error goes to standard error,
    with its line's number; else each is a JSON object. All lines are called, whatever becomes of
    others.

    Args:
        ipc: the service.
        request: the call, but for its data.
        form: how to write.

    Raises:
        AetherlessError: the first call's that failed, or the stream's.
    """
    first: AetherlessError | None = None
    for number, response in enumerate(_in_order(ipc, request)):
        error = _error_of(response)
        if form != "table":
            shown = {"error": error_data(error)} if error else plain(response.response)
            sys.stdout.write(json.dumps({"line": number + 1, **shown}) + "\n")
        else:
            if error:
                error.message = f"line {number + 1}: {error.message}"
            if error and first:  # the first is told at the end, by whoever catches it
                print_error(error, form)
            sys.stdout.buffer.write(response.response.data + b"\n")
        sys.stdout.flush()
        first = first or error
    if first:
        raise first


def _in_order(
    ipc: IpcServiceStub, request: messages.InvokeRequest
) -> Iterator[messages.InvokeStreamResponse]:
    """Yield the ends of all calls by their lines; those that come early wait."""
    early: dict[int, messages.InvokeStreamResponse] = {}
    due = 0
    with followed(lambda: ipc.InvokeStream(_calls(request))) as responses:
        for response in responses:
            early[response.call_id] = response
            while due in early:
                yield early.pop(due)
                due += 1


def _calls(request: messages.InvokeRequest) -> Iterator[messages.InvokeStreamRequest]:
    """Yield a call for each line of standard input; gRPC takes the next when there is room."""
    # A reader of its own: gRPC's thread may still wait for a line when an interrupt ends Python,
    # which takes the lock of sys.stdin's reader then, and aborts when a thread has it.
    with open(sys.stdin.fileno(), "rb", closefd=False) as lines:
        for number, line in enumerate(lines):
            call = messages.InvokeRequest()
            call.CopyFrom(request)
            call.data = line.removesuffix(b"\n")
            yield messages.InvokeStreamRequest(call_id=number, call=call)


def _error_of(response: messages.InvokeStreamResponse) -> AetherlessError | None:
    """Return the error that a call ended with; None for one that has a result."""
    if response.WhichOneof("outcome") != "error":
        return None
    status = status_pb2.Status()
    response.error.Unpack(status)
    return from_status(status)
