# SPDX-License-Identifier: Apache-2.0
"""``aetherctl rollback``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Lead a function back to an earlier revision.

The revision that serves and the two that served before it are kept, each with its declaration, its
snapshot and its files as they were; `aetherctl describe` shows them. The program is not started
anew: an instance is made from the kept snapshot beside the present one, then the port is switched,
and the present one drains. When anything fails on the way, the present one goes on serving.

Without --revision it goes to the one before: to what served before what serves now, or, when the
newest revision failed or is on its way, to what serves. The number stays the revision's own; the
next deploy gets a number that none has had.

\b
Examples:
  aetherctl rollback hello-api
  aetherctl rollback hello-api --revision 3
"""


@click.command("rollback", help=HELP)
@id_argument()
@click.option("--revision", type=click.IntRange(min=1), metavar="N", help="The revision to serve.")
@output_option
@click.pass_obj
def command(options: Options, function_id: str, revision: int | None) -> None:
    """Lead a function back to an earlier revision."""
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.live import changes
    from aetherless_cli.rollout import Rollout
    from aetherless_cli.session import finish

    console = Console(options.output)
    with mesh() as services:
        services.function(function_id)  # says at once what is missing
        with changes(services) as stream:
            alive = services.settings.runtime_dir.exists
            rollout = Rollout(services, stream, console, alive)
            rollout.roll_back(function_id, revision or 0)
            rollout.follow()
            finish(rollout, console)
