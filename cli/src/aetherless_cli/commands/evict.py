# SPDX-License-Identifier: Apache-2.0
"""``aetherctl evict``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """End a running function now; its next call restores it.

What the function held in memory since its last restore is lost: the next call finds it as the
snapshot has it. Refused while a client waits for an answer.

\b
Example:
  aetherctl evict hello-api && curl localhost:8080
"""


@click.command("evict", help=HELP)
@id_argument()
@output_option
@click.pass_obj
def command(options: Options, function_id: str) -> None:
    """End a running function now; its next call restores it."""
    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless_cli.client import function_name, mesh
    from aetherless_cli.console import Console
    from aetherless_cli.plain import enum_word, to_plain

    console = Console(options.output)
    with console.busy(f"evicting {function_id}"), mesh() as services:
        request = messages.EvictFunctionRequest(name=function_name(function_id))
        function = services.registry.EvictFunction(request).function
    text = f"{function_id} is evicted: {enum_word(function, 'state')}"
    console.line(text, event="evicted", function=to_plain(function))
