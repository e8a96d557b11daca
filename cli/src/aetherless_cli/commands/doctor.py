# SPDX-License-Identifier: Apache-2.0
"""``aetherctl doctor``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Check that this host can run functions.

One line per thing, with the remedy for each that is missing. It does not guess: a real program is
checkpointed and restored (once per boot; --force does it again). When no orchestrator is up, the
two services that check are started for a moment in a folder of their own.

\b
Examples:
  aetherctl doctor
  aetherctl doctor -o json | jq '.checks[] | select(.ok | not)'
"""


@click.command("doctor", help=HELP)
@click.option("--force", is_flag=True, help="Dump and restore again, even if this boot has.")
@output_option
@click.pass_obj
def command(options: Options, *, force: bool) -> None:
    """Check that this host can run functions."""
    from aetherless_cli import errors
    from aetherless_cli.console import Console
    from aetherless_cli.examination import examine
    from aetherless_cli.output import print_data
    from aetherless_cli.preflight import line_of

    console = Console(options.output)
    checks = examine(console, force=force)
    if options.output == "table":
        for check in checks:
            console.line(line_of(check, console))
    else:
        print_data({"checks": [check.data() for check in checks]}, options.output)
    missing = [check.name for check in checks if not check.ok]
    if missing:
        raise errors.host_not_ready(missing)
    if options.output == "table":
        console.line("this host can run functions")
