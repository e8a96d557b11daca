# SPDX-License-Identifier: Apache-2.0
"""The numbers of a function, as ``aetherctl stats`` shows them: of the kernel's and of CRIU's."""

from __future__ import annotations

import time
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from aetherless.netplane.v1 import netplane_service_pb2 as messages
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_cli.plain import milliseconds
from aetherless_common.errors import NotFound

if TYPE_CHECKING:
    from collections.abc import Mapping

    from aetherless.netplane.v1.route_pb2 import RouteStats
    from aetherless.registry.v1.function_pb2 import Function
    from aetherless.snapshotter.v1.instance_pb2 import Instance
    from aetherless_cli.client import Mesh

# What is also shown per second, and under which name.
RATES = {
    "requests": "requests_per_s",
    "connections": "connections_per_s",
    "wakes": "wakes_per_s",
    "received_bytes": "received_bytes_per_s",
    "sent_bytes": "sent_bytes_per_s",
}


def measure_all(services: Mesh, function_id: str | None) -> list[dict[str, Any]]:
    """Return the numbers of one function, or of all, by name.

    Raises:
        AetherlessError: a service does not answer, or there is no such function.
    """
    wanted = [services.function(function_id)] if function_id else services.functions()
    return [measure(services, function) for function in wanted]


@dataclass
class Rates:
    """Turns counters into rates, from what they were the last time.

    Args:
        names: what is also shown per second, and under which name.
    """

    names: Mapping[str, str] = field(default_factory=lambda: RATES)
    _counted: Mapping[str, dict[str, Any]] = field(default_factory=dict)
    _at: float = 0.0

    def add_to(self, rows: list[dict[str, Any]], now: float | None = None) -> None:
        """Add rates to rows, told apart by their ids; None where nothing can be compared."""
        at = time.monotonic() if now is None else now
        for row in rows:
            before = self._counted.get(row["id"], {})
            for name, rate in self.names.items():
                row[rate] = _rate(before.get(name), row[name], at - self._at)
        self._counted = {row["id"]: {name: row[name] for name in self.names} for row in rows}
        self._at = at


def _rate(before: int | None, after: int | None, seconds: float) -> float | None:
    """Return what a counter counted per second; None for one that began anew."""
    if before is None or after is None or after < before or seconds <= 0:
        return None
    return round((after - before) / seconds, 2)


def measure(services: Mesh, function: Function) -> dict[str, Any]:
    """Return the numbers of one function; None stands for what is not known."""
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
    if not function.spec.trigger_port:
        return None
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
    names = {
        "restore_p50": "restore_p50",
        "restore_p99": "restore_p99",
        "hold_p50": "request_p50",
        "hold_p99": "request_p99",
    }
    return {
        "wakes": sum(each.wakes for each in clones),
        "failed_wakes": sum(each.failed_wakes for each in clones),
        "evictions": sum(each.evictions for each in clones),
        **{f"{name}_ms": _milliseconds(stats, told) for name, told in names.items()},
    }


def _milliseconds(message: Any, field: str) -> float | None:
    if message is None or not message.HasField(field):
        return None
    return round(milliseconds(getattr(message, field)), 3)
