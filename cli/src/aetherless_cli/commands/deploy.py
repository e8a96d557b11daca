# SPDX-License-Identifier: Apache-2.0
"""``aetherctl deploy``."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Add or update the functions and pipelines of a file.

What the file does not name stays as it is, unless --prune is given. A new revision is
made beside the old one, which serves until the new one does. Without FILE the global -c is taken.

First the plan is shown: which functions are new, change (field by field), stay, are tried again or
are deleted. What was shown is what is done: when it would be something else by then, because
somebody else deployed, the command ends with ETAG_MISMATCH. --dry-run only shows the plan. The
values of environment variables may be secrets, so only names are shown without --show-values.

\b
Examples:
  aetherctl deploy examples/hello.yaml
  aetherctl deploy --dry-run --prune examples/hello.yaml
  aetherctl deploy -o json examples/hello.yaml | jq 'select(.event == "plan")'
"""


@click.command("deploy", help=HELP)
@click.argument("file", type=click.Path(path_type=Path, dir_okay=False), required=False)
@click.option(
    "-f",
    "--file",
    "named",
    type=click.Path(path_type=Path, dir_okay=False),
    metavar="FILE",
    help="The same as the argument.",
)
@click.option(
    "--prune", is_flag=True, help="Delete the functions and pipelines that the file does not name."
)
@click.option("--dry-run", is_flag=True, help="Show the plan, change nothing.")
@click.option("--show-values", is_flag=True, help="Show the values of environment variables, too.")
@output_option
@click.pass_obj
def command(
    options: Options,
    file: Path | None,
    named: Path | None,
    *,
    prune: bool,
    dry_run: bool,
    show_values: bool,
) -> None:
    """Add or update the functions of a file."""
    if file and named and file != named:
        raise click.UsageError(f"two files are named: {file} and {named}")
    from aetherless_cli.configuration import read

    config = read(file or named or options.config)

    from aetherless_cli import orchestrator
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.declaration import pipelines_of, specs_of
    from aetherless_cli.live import changes
    from aetherless_cli.planning import Planner
    from aetherless_cli.rollout import Rollout
    from aetherless_cli.session import finish
    from aetherless_common.settings import Settings

    settings = orchestrator.settings_for(config, Settings.load(), running=True)
    console = Console(options.output)
    with mesh(settings) as services:
        services.functions()  # says at once when there is no orchestrator
        orchestrator.refuse_other_settings(settings)
        with console.busy("looking at the functions' files"):
            specs = specs_of(config, settings.restore_timeout_ms)
        planner = Planner(
            services, console, specs, pipelines_of(config), prune=prune, show_values=show_values
        )
        if dry_run:
            planner.show()
            return
        with changes(services) as stream:
            rollout = Rollout(services, stream, console, settings.runtime_dir.exists)
            planner.carry_out(rollout)
            rollout.follow()
            finish(rollout, console)
