# SPDX-License-Identifier: Apache-2.0
"""``aetherctl invoke``."""

from __future__ import annotations

from typing import TYPE_CHECKING, BinaryIO

import click

from aetherless_cli.options import data_options, id_argument, output_option, time_options

if TYPE_CHECKING:
    from aetherless_cli.program import Options

#: As much as any record of a ring holds.
MOST_BYTES = 16 << 20
HELP = """Call a function through its channel of shared memory.

The function needs ipc: true, and a program that serves its channel; one that sleeps is woken. What
the handler returns is written to standard output byte by byte, with nothing added. What it is given
comes from --data, --file, or standard input (-); without any of them it is given nothing. With
--stream each line of standard input is a call, and each answer a line, in the lines' order; one
that failed is an empty line, and its error goes to standard error.

\b
Examples:
  aetherctl invoke upper --data hello          prints HELLO
  aetherctl invoke resize --file photo.jpg > small.jpg
  tar c . | aetherctl invoke pack - --timeout 60 > packed
  aetherctl invoke upper --data hello -o json  with attempts and time taken
  aetherctl invoke upper --stream < names.txt  a call for each line, many at once
"""


@click.command("invoke", help=HELP)
@id_argument()
@data_options("the handler")
@click.option("--method", metavar="NAME", default="", help="The handler's method to call.")
@time_options("the function's timeout_ms")
@click.option("--stream", is_flag=True, help="Make a call of each line of standard input.")
@output_option
@click.pass_obj
def command(
    options: Options,
    function_id: str,
    source: str | None,
    data: str | None,
    file: BinaryIO | None,
    method: str,
    timeout: float | None,
    *,
    wait: bool,
    stream: bool,
) -> None:
    """Call a function through its channel of shared memory."""
    from aetherless_cli.client import function_name, mesh
    from aetherless_cli.invocation import asking, given, invoke, show

    name = function_name(function_id)
    request = asking(timeout, function=name, method=method, wait_for_room=wait)
    if stream:
        _refuse_sources(source, data, file)
        from aetherless_cli.streaming import stream_lines

        with mesh() as services:
            stream_lines(services.ipc, request, options.output)
        return
    request.data = given(source, data, file)
    _refuse_too_much(function_id, request.data)
    with mesh() as services:
        answer = invoke(services, request)
    show("function", function_id, answer, options.output)


def _refuse_sources(*sources: object) -> None:
    """Refuse what else a handler could be given than the lines of standard input.

    Raises:
        click.UsageError: one is named.
    """
    if any(each is not None for each in sources):
        raise click.UsageError("--stream reads standard input; leave --data, --file and - out")


def _refuse_too_much(function_id: str, data: bytes) -> None:
    """Refuse what no ring takes, before it is sent.

    Raises:
        InvalidArgument: PAYLOAD_TOO_LARGE.
    """
    from aetherless_cli.reasons import error_of

    if len(data) > MOST_BYTES:
        text = f"{len(data)} bytes for function {function_id}, of at most {MOST_BYTES}"
        metadata = {"function": function_id, "bytes": str(len(data)), "limit": str(MOST_BYTES)}
        raise error_of("ipc.aetherless", "PAYLOAD_TOO_LARGE", text, metadata)
