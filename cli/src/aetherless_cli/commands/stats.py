# SPDX-License-Identifier: Apache-2.0
"""``aetherctl stats``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless.netplane.v1.route_pb2 import RouteStats
    from aetherless.registry.v1.function_pb2 import Function
    from aetherless.snapshotter.v1.instance_pb2 import Instance
    from aetherless_cli.client import Mesh
    from aetherless_cli.main import Options

HELP = """Show requests, wakes, latencies and memory.

Of one function or of all. Requests and first-byte times are counted by the kernel on the packets'
way, since the route was made: FIRST BYTE is from a wake's first packet to the first payload byte of
its answer. Restore times are CRIU's, over the newest wakes. Memory is what the processes have now:
UNIQUE is theirs alone, SHARED is mapped by others as well.

\b
Examples:
  aetherctl stats
  aetherctl stats hello-api -o json | jq '.functions[0].first_byte_p50_ms'
"""
COLUMNS = (
    ("ID", "id"),
    ("REQUESTS", "requests"),
    ("CONNS", "connections"),
    ("WAKES", "wakes"),
    ("FAILED", "failed_wakes"),
    ("RESTORE P50", "restore_p50_ms"),
    ("P99 MS", "restore_p99_ms"),
    ("FIRST BYTE P50", "first_byte_p50_ms"),
    ("P99 MS", "first_byte_p99_ms"),
    ("UNIQUE", "unique_memory_bytes"),
    ("SHARED", "shared_memory_bytes"),
)


@click.command("stats", help=HELP)
@id_argument(required=False)
@output_option
@click.pass_obj
def command(options: Options, function_id: str | None) -> None:
    """Show requests, wakes, latencies and memory."""
    from aetherless_cli.client import mesh
    from aetherless_cli.output import print_data, print_table

    with mesh() as services:
        wanted = [services.function(function_id)] if function_id else services.functions()
        rows = [_measure(services, function) for function in wanted]
    if options.output != "table":
        print_data({"functions": rows}, options.output)
        return
    print_table([title for title, _ in COLUMNS], [_row(each) for each in rows])


def _row(measured: dict[str, Any]) -> list[object]:
    from aetherless_cli.output import size

    return [size(measured[key]) if key.endswith("_bytes") else measured[key] for _, key in COLUMNS]


def _measure(services: Mesh, function: Function) -> dict[str, Any]:
    from aetherless.snapshotter.v1 import instance_pb2

    clones = [
        each
        for each in services.instances(function.spec.function_id)
        if each.role == instance_pb2.INSTANCE_ROLE_CLONE
    ]
    return {
        "id": function.spec.function_id,
        **_traffic(_route_stats(services, function)),
        **_restores(clones),
        "unique_memory_bytes": sum(each.unique_memory_bytes for each in clones),
        "shared_memory_bytes": sum(each.shared_memory_bytes for each in clones),
    }


def _route_stats(services: Mesh, function: Function) -> RouteStats | None:
    """Return the counters of a function's route; None when it has no route (yet)."""
    from aetherless.netplane.v1 import netplane_service_pb2 as messages
    from aetherless_common.errors import NotFound

    request = messages.GetRouteStatsRequest(name=f"routes/{function.spec.trigger_port}")
    try:
        return services.netplane.GetRouteStats(request).stats
    except NotFound:
        return None


def _traffic(stats: RouteStats | None) -> dict[str, Any]:
    names = ("requests", "connections", "resets", "received_bytes", "sent_bytes", "answered_wakes")
    counted: dict[str, Any] = {name: getattr(stats, name) if stats else None for name in names}
    for name in ("first_byte_p50", "first_byte_p99"):
        counted[f"{name}_ms"] = _milliseconds(stats, name)
    return counted


def _restores(clones: list[Instance]) -> dict[str, Any]:
    """Add up the wakes; percentiles can't be added, so they are of the busiest instance."""
    with_stats = [each for each in clones if each.HasField("restore_stats")]
    busiest = max(with_stats, key=lambda each: each.restore_stats.count, default=None)
    stats = busiest.restore_stats if busiest else None
    names = ("restore_p50", "restore_p99", "request_p50", "request_p99")
    return {
        "wakes": sum(each.wakes for each in clones),
        "failed_wakes": sum(each.failed_wakes for each in clones),
        "evictions": sum(each.evictions for each in clones),
        **{f"{name}_ms": _milliseconds(stats, name) for name in names},
    }


def _milliseconds(message: Any, field: str) -> float | None:
    from aetherless_cli.plain import milliseconds

    if message is None or not message.HasField(field):
        return None
    return round(milliseconds(getattr(message, field)), 3)
