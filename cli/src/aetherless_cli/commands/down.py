# SPDX-License-Identifier: Apache-2.0
"""``aetherctl down``."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from aetherless_cli.options import output_option, require_root

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """End everything and remove it from this host.

Services, sandboxes, links, BPF programs, control groups, mounts, sysctls and snapshots go; only
the state folder with its logs stays. Works during a deploy, during a wake, and when nothing lives
any more (then it removes what a crash left behind, and returns 0).

\b
Examples:
  aetherctl down
  aetherctl down --keep-snapshots    the next up restores, and starts nothing
"""


@click.command("down", help=HELP)
@click.option(
    "--keep-snapshots", is_flag=True, help="Keep snapshots and the functions they are of."
)
@output_option
@click.pass_obj
def command(options: Options, *, keep_snapshots: bool) -> None:
    """End everything and remove it from this host."""
    from aetherless_cli import orchestrator
    from aetherless_cli.console import Console
    from aetherless_cli.interruption import undisturbed
    from aetherless_cli.removal import Removal
    from aetherless_common.settings import Settings

    require_root("down")
    settings = Settings.load()
    console = Console(options.output)
    with undisturbed(), orchestrator.lock(settings, console):
        left = settings.runtime_dir.is_dir() and any(settings.runtime_dir.iterdir())
        removal = Removal(settings, console)
        ran = removal.run(keep_snapshots=keep_snapshots)
    what = "nothing was running; nothing is left behind"
    if ran:
        what = "everything is taken down"
    elif left:
        what = "no service was running; what was left behind is removed"
    console.line(what, event="gone", ended=removal.ended)
