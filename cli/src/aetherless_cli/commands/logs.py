# SPDX-License-Identifier: Apache-2.0
"""``aetherctl logs``."""

from __future__ import annotations

import sys

import click

from aetherless_cli.options import id_argument, output_option

HELP = """Show what a function printed: its standard output and error.

It is passed on byte by byte, whatever -o says; -o is for errors.

\b
Examples:
  aetherctl logs hello-api               the last 100 lines
  aetherctl logs hello-api -n -1         all that is kept
  aetherctl logs hello-api -f            go on until Ctrl-C
"""


@click.command("logs", help=HELP)
@id_argument()
@click.option("-f", "--follow", is_flag=True, help="Go on with what is printed later.")
@click.option(
    "-n",
    "--lines",
    type=click.IntRange(min=-1),
    default=100,
    show_default=True,
    help="-1 means all.",
)
@output_option
def command(function_id: str, lines: int, *, follow: bool) -> None:
    """Show what a function printed: its standard output and error."""
    from aetherless.snapshotter.v1 import snapshotter_service_pb2 as messages
    from aetherless_cli.client import mesh
    from aetherless_cli.following import followed

    if lines == 0:
        raise click.UsageError("-n 0 shows nothing; take 1 or more, or -1 for all")
    request = messages.TailLogsRequest(function_id=function_id, lines=lines, follow=follow)
    with mesh() as services:
        try:
            with followed(lambda: services.snapshotter.TailLogs(request)) as parts:
                for part in parts:
                    sys.stdout.buffer.write(part.data)
                    sys.stdout.buffer.flush()
        except KeyboardInterrupt:  # the usual end of following
            if sys.stdout.isatty():
                print()  # the prompt is not to stand behind the terminal's ^C
