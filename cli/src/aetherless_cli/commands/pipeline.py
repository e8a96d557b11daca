# SPDX-License-Identifier: Apache-2.0
"""``aetherctl pipeline``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, BinaryIO

import click

from aetherless_cli.options import (
    data_options,
    output_option,
    pipeline_argument,
    time_options,
)

if TYPE_CHECKING:
    from aetherless_cli.program import Options

INTERVAL = 1.0
LEAST_INTERVAL = 0.1
HELP = """Run pipelines, and see what goes through them.

A pipeline joins functions output to input; `pipelines:` in the configuration file declares it, and
`aetherctl deploy` makes it.

\b
Examples:
  aetherctl pipeline list
  aetherctl pipeline run image --file photo.png > small.png
  aetherctl pipeline top
"""
LIST_HELP = """List the pipelines.

\b
Example:
  aetherctl pipeline list -o json | jq '.pipelines[].stats'
"""
DESCRIBE_HELP = """Show one pipeline: its stages, its edges and what went through them.

RECORDS are runs that a stage passed on or answered, FAILED those that ended there with an error.
ENDS are the sides of an edge that have it now, READERS counts the processes that have read of it.
BYTES count records with what surrounds them; WAITING was written and is not worked off.

\b
Example:
  aetherctl pipeline describe image
"""
RUN_HELP = """Run a pipeline once: give the first stage data, print what the last answers.

Stages that sleep are woken. What the last stage's handler returns is written to standard output
byte by byte, with nothing added. What the first is given comes from --data, --file, or standard
input (-); without any of them it is given nothing.

\b
Examples:
  aetherctl pipeline run image --file photo.png > small.png
  aetherctl pipeline run image - < photo.png > small.png
  aetherctl pipeline run words --data hello -o json
"""
TOP_HELP = """Show what goes through pipelines, live.

The first row of a pipeline is the whole of it: runs that ended per second, those that failed, those
that are FLYING, and bytes of data that callers gave. Those of its stages follow: records per
second, runs that failed there, bytes that came to it, and bytes WAITING at its inputs, with what
surrounds each record. On a terminal the table stands in place, elsewhere lines are appended, and
with -o json one object per line.

\b
Examples:
  aetherctl pipeline top
  aetherctl pipeline top image -n 60 -o json > minute.jsonl
"""
LIST_COLUMNS = ("ID", "STAGES", "DELIVERY", "RUNS", "FAILED", "FLYING")
STAGE_COLUMNS = ("STAGE", "FUNCTION", "METHOD", "FROM", "ATTACHED", "RECORDS", "FAILED")
EDGE_COLUMNS = ("FROM", "TO", "ENDS", "READERS", "BYTES", "WAITING")


@click.group("pipeline", help=HELP)
def command() -> None:
    """Run pipelines, and see what goes through them."""


@command.command("list", help=LIST_HELP)
@output_option
@click.pass_obj
def list_(options: Options) -> None:
    """List the pipelines."""
    from aetherless_cli.client import mesh
    from aetherless_cli.output import print_data, print_table
    from aetherless_cli.pipeline_view import graph, name_of
    from aetherless_cli.plain import enum_word, to_plain

    with mesh() as services:
        pipelines = services.pipelines()
    if options.output != "table":
        print_data({"pipelines": [to_plain(each) for each in pipelines]}, options.output)
        return
    rows = [
        [
            name_of(each),
            graph(each),
            enum_word(each, "delivery").lower().replace("_", "-"),
            each.stats.runs,
            each.stats.failed,
            each.stats.in_flight,
        ]
        for each in pipelines
    ]
    print_table(LIST_COLUMNS, rows)


@command.command("describe", help=DESCRIBE_HELP, short_help="Show one pipeline and its counters.")
@pipeline_argument()
@output_option
@click.pass_obj
def describe(options: Options, pipeline_id: str) -> None:
    """Show one pipeline: its stages, its edges and what went through them."""
    from aetherless_cli.client import mesh
    from aetherless_cli.output import print_data, print_fields, print_table
    from aetherless_cli.pipeline_view import edge_row, fields_of, stage_row
    from aetherless_cli.plain import to_plain

    with mesh() as services:
        pipeline = services.pipeline(pipeline_id)
    if options.output != "table":
        print_data({"pipeline": to_plain(pipeline)}, options.output)
        return
    print_fields(fields_of(pipeline))
    print()
    print_table(STAGE_COLUMNS, [stage_row(each) for each in pipeline.stages])
    if pipeline.edges:
        print()
        print_table(EDGE_COLUMNS, [edge_row(each) for each in pipeline.edges])


@command.command("run", help=RUN_HELP, short_help="Run a pipeline once.")
@pipeline_argument()
@data_options("the first stage")
@time_options("the pipeline's timeout_ms")
@output_option
@click.pass_obj
def run(
    options: Options,
    pipeline_id: str,
    source: str | None,
    data: str | None,
    file: BinaryIO | None,
    timeout: float | None,
    *,
    wait: bool,
) -> None:
    """Run a pipeline once."""
    from aetherless_cli.client import mesh, pipeline_name
    from aetherless_cli.invocation import asking, given, invoke, show

    name, payload = pipeline_name(pipeline_id), given(source, data, file)
    request = asking(timeout, pipeline=name, data=payload, wait_for_room=wait)
    with mesh() as services:
        answer = invoke(services, request)
    show("pipeline", pipeline_id, answer, options.output)


@command.command("top", help=TOP_HELP)
@pipeline_argument(required=False)
@click.option(
    "--interval",
    type=click.FloatRange(min=LEAST_INTERVAL),
    default=INTERVAL,
    show_default=True,
    metavar="SECONDS",
    help="How often.",
)
@click.option("-n", "--number", type=click.IntRange(min=1), help="End after so many.")
@output_option
@click.pass_obj
def top(options: Options, pipeline_id: str | None, interval: float, number: int | None) -> None:
    """Show what goes through pipelines, live."""
    from aetherless_cli.client import mesh
    from aetherless_cli.live_table import make_view
    from aetherless_cli.measure import Rates
    from aetherless_cli.pipeline_view import TOP_COLUMNS, TOP_RATES, top_rows
    from aetherless_cli.stats_watch import Sampler, watch

    with mesh() as services:

        def measure() -> list[dict[str, Any]]:
            one = [services.pipeline(pipeline_id)] if pipeline_id else None
            return top_rows(services.pipelines() if one is None else one)

        sampler = Sampler(services, measure, Rates(TOP_RATES))
        watch(sampler, make_view(options.output, TOP_COLUMNS, "stages"), interval, number)
