# SPDX-License-Identifier: Apache-2.0
"""``aetherctl stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless_cli.program import Options

HELP = """Show requests, wakes, latencies and memory.

Of one function or of all. Requests and first-byte times are counted by the kernel on the packets'
way, since the route was made: FIRST BYTE is from a wake's first packet to the first payload byte of
its answer. Restore times are CRIU's, over the newest wakes. Memory is what the processes have now:
UNIQUE is theirs alone, SHARED is mapped by others as well. Times are in milliseconds.

With -w the numbers are shown anew every second: on a terminal in place, elsewhere as lines, and
with -o json as one object per line. P50 and P99 are of the restores, MEM is UNIQUE, IN and OUT are
bytes of TCP payload.

\b
Examples:
  aetherctl stats
  aetherctl stats -w
  aetherctl stats hello-api -o json | jq '.functions[0].first_byte_p50_ms'
  aetherctl stats -w -n 60 -o json > minute.jsonl
"""
COLUMNS = (
    ("ID", "id"),
    ("REQUESTS", "requests"),
    ("CONNS", "connections"),
    ("WAKES", "wakes"),
    ("FAILED", "failed_wakes"),
    ("RESTORE P50", "restore_p50_ms"),
    ("RESTORE P99", "restore_p99_ms"),
    ("FIRST BYTE P50", "first_byte_p50_ms"),
    ("FIRST BYTE P99", "first_byte_p99_ms"),
    ("UNIQUE", "unique_memory_bytes"),
    ("SHARED", "shared_memory_bytes"),
)
INTERVAL = 1.0
LEAST_INTERVAL = 0.1


@click.command("stats", help=HELP)
@id_argument(required=False)
@click.option("-w", "--watch", is_flag=True, help="Show them anew until Ctrl-C.")
@click.option(
    "--interval",
    type=click.FloatRange(min=LEAST_INTERVAL),
    metavar="SECONDS",
    help="How often, with -w; 1 by default.",
)
@click.option("-n", "--number", type=click.IntRange(min=1), help="End after so many, with -w.")
@output_option
@click.pass_obj
def command(
    options: Options,
    function_id: str | None,
    interval: float | None,
    number: int | None,
    *,
    watch: bool,
) -> None:
    """Show requests, wakes, latencies and memory."""
    from aetherless_cli.client import mesh
    from aetherless_cli.console import Console
    from aetherless_cli.measure import measure_all

    if (number or interval) and not watch:
        raise click.UsageError(f"{'-n' if number else '--interval'} is for -w; give both")
    with mesh() as services:
        if watch:
            from aetherless_cli.stats_watch import watch_stats

            watch_stats(services, function_id, options.output, interval or INTERVAL, number)
            return
        with Console(options.output).busy("reading the numbers"):
            rows = measure_all(services, function_id)
    _show(rows, options.output)


def _show(rows: list[dict[str, Any]], form: str) -> None:
    from aetherless_cli.output import print_data, print_table

    if form != "table":
        print_data({"functions": rows}, form)
        return
    print_table([title for title, _ in COLUMNS], [_row(each) for each in rows])


def _row(measured: dict[str, Any]) -> list[object]:
    from aetherless_cli.output import size

    return [size(measured[key]) if key.endswith("_bytes") else measured[key] for _, key in COLUMNS]
