# SPDX-License-Identifier: Apache-2.0
"""Shows one line per wake, for ``up --foreground``."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli.plain import milliseconds, to_plain
from aetherless_common.errors import AetherlessError

if TYPE_CHECKING:
    from collections.abc import Callable

    from aetherless_cli.console import Console
    from aetherless_cli.live import Changes

TURN = 0.25


def show_wakes(changes: Changes, console: Console, alive: Callable[[], bool]) -> None:
    """Print each wake until the orchestrator is gone. Tells once when the registry is away."""
    away = False
    while alive():
        response = changes.next(TURN)
        if response is None:
            continue
        if isinstance(response, AetherlessError):
            if not away and alive():
                console.line(f"the registry is away ({response.message}); functions go on")
            away = True
            continue
        if away:
            console.line("the registry is back")
        away = False
        for event in response.events:
            _show(event, console)


def _show(event: messages.FunctionEvent, console: Console) -> None:
    name = event.function.spec.function_id
    if event.type == messages.FUNCTION_EVENT_TYPE_WAKE:
        text = wake_line(name, event.wake, console)
        console.line(text, event="wake", id=name, wake=to_plain(event.wake))
    elif event.type == messages.FUNCTION_EVENT_TYPE_DELETED:
        console.line(f"{name}: deleted", event="deleted", id=name)


def wake_line(name: str, wake: function_pb2.WakeNotice, console: Console) -> str:
    """Return the line that tells of one wake: when, what, by whom, how fast or why not."""
    by = f"by {wake.client}" if wake.client else f"by {wake.cause}"
    start = f"{_clock(wake)}  {name}: woken {by}"
    if wake.failure_reason:
        failed = console.paint(f"failed: {wake.failure_reason}", "31;1")
        return f"{start}, {failed}: {wake.failure_message}"
    parts = [start]
    if wake.HasField("restore_duration"):
        parts.append(f"restored in {milliseconds(wake.restore_duration):.1f} ms")
    if wake.HasField("first_byte"):
        parts.append(f"first byte after {milliseconds(wake.first_byte):.1f} ms")
    return ", ".join(parts)


def _clock(wake: function_pb2.WakeNotice) -> str:
    if not wake.HasField("first_packet_time"):
        return datetime.now(UTC).astimezone().strftime("%H:%M:%S")
    moment = wake.first_packet_time.ToDatetime(UTC).astimezone()
    return moment.strftime("%H:%M:%S.%f")[:-3]
