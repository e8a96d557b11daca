# SPDX-License-Identifier: Apache-2.0
"""What calls of functions and runs of pipelines have in common: what is given, what is printed."""

from __future__ import annotations

import sys
from base64 import b64encode
from typing import TYPE_CHECKING, Any, BinaryIO

import click

from aetherless_cli.output import print_data
from aetherless_cli.plain import milliseconds

if TYPE_CHECKING:
    from aetherless.ipc.v1.ipc_service_pb2 import InvokeRequest, InvokeResponse
    from aetherless_cli.client import Mesh

#: How much longer than the call itself the service may take to say that its time is over.
PATIENCE_S = 5.0


def given(source: str | None, data: str | None, file: BinaryIO | None) -> bytes:
    """Return what the handler is to be given.

    Raises:
        click.UsageError: more than one source is named.
    """
    if sum(each is not None for each in (source, data, file)) > 1:
        raise click.UsageError("name one of --data, --file and -")
    if source:
        file = sys.stdin.buffer
    return file.read() if file else (data or "").encode()


def asking(timeout: float | None, **fields: Any) -> InvokeRequest:
    """Return a request of a call or a run; without a ``timeout``, in seconds, it has the usual."""
    from aetherless.ipc.v1 import ipc_service_pb2 as messages

    request = messages.InvokeRequest(**fields)
    if timeout:
        request.timeout.FromNanoseconds(round(timeout * 1e9))
    return request


def invoke(services: Mesh, request: InvokeRequest) -> InvokeResponse:
    """Make a call or a run.

    Raises:
        AetherlessError: how it ended, if not by a result.
    """
    own = request.timeout.ToNanoseconds() / 1e9
    answer: InvokeResponse = services.ipc.Invoke(request, timeout=own + PATIENCE_S if own else None)
    return answer


def show(kind: str, name: str, answer: InvokeResponse, form: str) -> None:
    """Print an answer: its bytes alone, or all of it for programs."""
    if form == "table":
        sys.stdout.buffer.write(answer.data)
        sys.stdout.buffer.flush()
    else:
        print_data({kind: name, **plain(answer)}, form)


def plain(answer: InvokeResponse) -> dict[str, Any]:
    """Return an answer for programs; data that is no text stands as base64."""
    try:
        shown = {"data": answer.data.decode()}
    except UnicodeDecodeError:
        shown = {"data_base64": b64encode(answer.data).decode()}
    return {
        **shown,
        "attempts": answer.attempts,
        "woke": answer.woke,
        "elapsed_ms": milliseconds(answer.elapsed),
    }
