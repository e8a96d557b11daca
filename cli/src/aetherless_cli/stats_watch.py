# SPDX-License-Identifier: Apache-2.0
"""``aetherctl stats -w``: the numbers of functions, again and again."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from aetherless_cli import errors
from aetherless_cli.live_table import make_view
from aetherless_cli.measure import Rates, measure_all
from aetherless_common.errors import AetherlessError, DeadlineExceeded, Unavailable

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_cli.client import Mesh
    from aetherless_cli.live_table import View

# Title, key.
COLUMNS = (
    ("ID", "id"),
    ("REQ/S", "requests_per_s"),
    ("CONN/S", "connections_per_s"),
    ("WAKES", "wakes"),
    ("FAILED", "failed_wakes"),
    ("P50 MS", "restore_p50_ms"),
    ("P99 MS", "restore_p99_ms"),
    ("MEM", "unique_memory_bytes"),
    ("IN/S", "received_bytes_per_s"),
    ("OUT/S", "sent_bytes_per_s"),
)


def watch_stats(
    services: Mesh, function_id: str | None, form: str, interval: float, number: int | None
) -> None:
    """Show the numbers every ``interval`` seconds, ``number`` times or until Ctrl-C.

    Raises:
        Aborted: TAKEN_DOWN, the orchestrator is gone.
        AetherlessError: there is no such function.
    """
    sampler = Sampler(services, lambda: measure_all(services, function_id), Rates())
    watch(sampler, make_view(form, COLUMNS, "functions"), interval, number)


def watch(sampler: Sampler, view: View, interval: float, number: int | None) -> None:
    """Show what is sampled every ``interval`` seconds, ``number`` times or until Ctrl-C.

    Raises:
        Aborted: TAKEN_DOWN, the orchestrator is gone.
        AetherlessError: what is asked for does not exist.
    """
    due = time.monotonic()
    shown = 0
    try:
        while number is None or shown < number:
            view.show(sampler.sample(), sampler.problem)
            shown += 1
            due = max(due + interval, time.monotonic())
            if shown != number:
                time.sleep(max(0.0, due - time.monotonic()))
    except KeyboardInterrupt:
        view.end()  # the usual end of watching


class Sampler:
    """Measures; while a service is away, what was measured last stands.

    Args:
        services: the orchestrator's.
        measure: returns rows of numbers, each with an id.
        rates: adds what is counted per second to them.
    """

    def __init__(
        self, services: Mesh, measure: Callable[[], list[dict[str, Any]]], rates: Rates
    ) -> None:
        self._services = services
        self._measure = measure
        self._rates = rates
        self._rows: list[dict[str, Any]] = []
        self._begun = False
        self.problem = ""

    def sample(self) -> list[dict[str, Any]]:
        """Return the numbers as they are now."""
        try:
            rows = self._measure()
        except (Unavailable, DeadlineExceeded) as error:
            self._bear(error)
        else:
            self._rates.add_to(rows)
            self._rows, self._begun, self.problem = rows, True, ""
        return self._rows

    def _bear(self, error: AetherlessError) -> None:
        """Go on without a service for a while; at the beginning it is an error."""
        if not self._begun:
            raise error
        if not self._services.settings.runtime_dir.exists():
            raise errors.taken_down() from error
        self.problem = f"{error.metadata.get('service', 'a service')} does not answer"
