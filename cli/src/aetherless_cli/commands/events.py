# SPDX-License-Identifier: Apache-2.0
"""``aetherctl events``."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Show what happened: deploys, wakes, evictions, failures.

Of one function or of all, the newest last. Warnings are what somebody should look at: a deploy that
failed, a wake that came too late, a program that met its memory limit, a service that died.

\b
Examples:
  aetherctl events                          the last 50
  aetherctl events hello-api --warnings     what went wrong with one
  aetherctl events --since 10m              the last ten minutes
  aetherctl events -f -n 0                  only what comes, until Ctrl-C
  aetherctl events -f -o json | jq .reason  one JSON object per line
"""
NEWEST = 50
ALL = -1
UNITS = {"s": 1, "m": 60, "h": 3600, "d": 86400}
AGE = re.compile(r"(\d+)([smhd])")


def _age(_: click.Context, __: click.Parameter, value: str | None) -> int | None:
    """Return an age in seconds."""
    if value is None:
        return None
    match = AGE.fullmatch(value)
    if match is None:
        raise click.BadParameter(f"{value!r} is no age; write 30s, 10m, 2h or 7d")
    return int(match[1]) * UNITS[match[2]]


@click.command("events", help=HELP)
@id_argument(required=False)
@click.option("-f", "--follow", is_flag=True, help="Go on with what happens later.")
@click.option("-n", "--number", type=click.IntRange(min=ALL), help="How many; 50, -1 means all.")
@click.option("--since", callback=_age, metavar="AGE", help="Not older than 30s, 10m, 2h, 7d.")
@click.option("--warnings", is_flag=True, help="Only what somebody should look at.")
@output_option
@click.pass_obj
def command(
    options: Options,
    function_id: str | None,
    number: int | None,
    since: int | None,
    *,
    follow: bool,
    warnings: bool,
) -> None:
    """Show what happened."""
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.event_log import Wanted, follow_events, list_events
    from aetherless_cli.event_view import EventView

    wanted = Wanted(function_id or "", warnings=warnings)
    count = number if number is not None else (ALL if since is not None else NEWEST)
    oldest_ns = 0 if since is None else time.time_ns() - since * 10**9
    with mesh() as services:
        limit = None if count == ALL else count
        with Console(options.output).busy("reading the events"):
            if function_id and follow:
                services.function(function_id)  # says at once when there is none
            events, last = list_events(services, wanted, limit, oldest_ns)
        view = EventView(options.output, events)
        view.show_all(events, follow=follow)
        if follow:
            follow_events(services, wanted, last + 1, view)
