# SPDX-License-Identifier: Apache-2.0
"""``aetherctl delete``."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Delete a function and all that serves it.

Returns when its sandboxes, snapshots and its port's route are gone. Connections are ended at once;
calls through its channel that wait for an answer fail with PEER_GONE.

\b
Example:
  aetherctl delete hello-api
"""
PATIENCE = 90.0
TURN = 0.05


@click.command("delete", help=HELP)
@id_argument()
@output_option
@click.pass_obj
def command(options: Options, function_id: str) -> None:
    """Delete a function and all that serves it."""
    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless_cli.client import function_name, mesh
    from aetherless_cli.console import Console
    from aetherless_common.errors import NotFound, peer_timeout

    console = Console(options.output)
    with console.busy(f"deleting {function_id}"), mesh() as services:
        request = messages.DeleteFunctionRequest(name=function_name(function_id))
        services.registry.DeleteFunction(request)
        deadline = time.monotonic() + PATIENCE
        try:
            while time.monotonic() < deadline:
                services.function(function_id)
                time.sleep(TURN)
        except NotFound:
            console.line(f"{function_id} is deleted", event="deleted", id=function_id)
            return
    raise peer_timeout("registry", "DeleteFunction")
