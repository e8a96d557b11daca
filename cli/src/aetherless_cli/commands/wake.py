# SPDX-License-Identifier: Apache-2.0
"""``aetherctl wake``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Restore a function before anyone calls it.

Returns when CRIU has answered; a function that runs already stays as it is.

\b
Example:
  aetherctl wake hello-api
"""


@click.command("wake", help=HELP)
@id_argument()
@output_option
@click.pass_obj
def command(options: Options, function_id: str) -> None:
    """Restore a function before anyone calls it."""
    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless_cli.client import function_name, mesh
    from aetherless_cli.console import Console
    from aetherless_cli.plain import enum_word, milliseconds, to_plain

    console = Console(options.output)
    with console.busy(f"waking {function_id}"), mesh() as services:
        request = messages.WakeFunctionRequest(name=function_name(function_id))
        function = services.registry.WakeFunction(request).function
    restores = [each.last_restore for each in function.instances if each.HasField("last_restore")]
    text = f"{function_id} is awake: {enum_word(function, 'state')}"
    if restores:
        text += f", last restored in {milliseconds(restores[-1]):.1f} ms"
    console.line(text, event="woken", function=to_plain(function))
