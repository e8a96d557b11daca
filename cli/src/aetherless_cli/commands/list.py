# SPDX-License-Identifier: Apache-2.0
"""``aetherctl list``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option

if TYPE_CHECKING:
    from aetherless.registry.v1.function_pb2 import Function, Revision
    from aetherless_cli.program import Options

HELP = """List the functions.

STATE is what would answer the next call: RUNNING a process, WARM_SNAPSHOT a restore,
UNINITIALIZED nothing yet. RESTORE MS is how long the newest restore took, KEPT are the revisions
that `aetherctl rollback` can lead back to.

\b
Examples:
  aetherctl list
  aetherctl list -o json | jq '.functions[].state'
"""
COLUMNS = (
    "ID",
    "STATE",
    "DEPLOY",
    "PORT",
    "REVISION",
    "KEPT",
    "WAKES",
    "RESTORE MS",
    "HANDLER",
)


@click.command("list", help=HELP)
@output_option
@click.pass_obj
def command(options: Options) -> None:
    """List the functions."""
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.output import print_data, print_table
    from aetherless_cli.plain import to_plain

    with Console(options.output).busy("reading the functions"), mesh() as services:
        functions = services.functions()
    if options.output == "table":
        print_table(COLUMNS, [_row(function) for function in functions])
        return
    print_data({"functions": [to_plain(function) for function in functions]}, options.output)


def _row(function: Function) -> list[object]:
    from aetherless_cli.plain import enum_word, milliseconds

    restores = [each.last_restore for each in function.instances if each.HasField("last_restore")]
    deploy = "DELETING" if function.deleting else enum_word(function, "deploy_state")
    if function.deploy_error.reason:
        deploy = f"{deploy} ({function.deploy_error.reason})"
    return [
        function.spec.function_id,
        enum_word(function, "state"),
        deploy,
        function.spec.trigger_port or None,
        function.serving_revision or None,
        ",".join(str(each.revision) for each in function.revisions if _is_kept(each)),
        sum(each.wakes for each in function.instances),
        milliseconds(restores[-1]) if restores else None,
        function.spec.handler_path,
    ]


def _is_kept(revision: Revision) -> bool:
    from aetherless.registry.v1.function_pb2 import REVISION_STATE_KEPT

    return revision.state == REVISION_STATE_KEPT
