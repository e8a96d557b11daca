# SPDX-License-Identifier: Apache-2.0
"""``aetherctl trace``."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from aetherless_cli.options import id_argument, output_option

if TYPE_CHECKING:
    from aetherless.registry.v1.event_pb2 import Event
    from aetherless.registry.v1.function_pb2 import Function, WakeNotice
    from aetherless_cli.client import Mesh
    from aetherless_cli.program import Options
    from aetherless_cli.waterfall import Part

HELP = """Show the newest wake of a function as a waterfall.

Of the kernel's times, and without a collector: hold is until the restore was asked of CRIU, restore
until CRIU's answer, replay until the packets that were held are sent again, answer is the program's
own time to the first byte of its answer.

\b
Examples:
  aetherctl trace hello-api
  aetherctl -o json trace hello-api | jq '.parts[] | {name, duration_ms}'
"""
RECENT = 100  # events that are looked through for the wake's


@click.command("trace", help=HELP)
@id_argument()
@output_option
@click.pass_obj
def command(options: Options, function_id: str) -> None:
    """Show the newest wake of a function as a waterfall."""
    from aetherless_cli.client import mesh
    from aetherless_cli.output import print_data
    from aetherless_cli.waterfall import parts

    with mesh() as services:
        wake = _newest(services.function(function_id))
        event = _event_of(services, function_id, wake)
    first_byte = _first_byte(wake, event)
    found = parts(wake, first_byte)
    if options.output == "table":
        _show(function_id, wake, found, event)
    else:
        print_data(_data(function_id, wake, found, event), options.output)


def _newest(function: Function) -> WakeNotice:
    """Return the newest wake of the instances that serve a function.

    Raises:
        NotFound: WAKE_NOT_FOUND.
    """
    from aetherless_cli import errors

    woken = [each.newest_wake for each in function.instances if each.HasField("newest_wake")]
    if not woken:
        raise errors.wake_not_found(function.spec.function_id, function.spec.trigger_port)
    return max(woken, key=lambda wake: int(wake.first_packet_time.ToNanoseconds()))


def _event_of(services: Mesh, function_id: str, wake: WakeNotice) -> Event | None:
    """Return the event that tells of a wake; None when it is not written yet, or not any more."""
    from aetherless.registry.v1 import registry_service_pb2 as messages
    from aetherless_cli.client import function_name

    request = messages.ListEventsRequest(
        function=function_name(function_id), newest_first=True, page_size=RECENT
    )
    wanted = (wake.instance, str(wake.sequence))
    for event in services.registry.ListEvents(request).events:
        if (event.metadata.get("instance"), event.metadata.get("wake")) == wanted:
            return event
    return None


def _first_byte(wake: WakeNotice, event: Event | None) -> float | None:
    """Return when the answer's first byte came, in milliseconds from the first packet."""
    from aetherless_cli.plain import milliseconds

    if wake.HasField("first_byte"):
        return milliseconds(wake.first_byte)
    if event and "firstByteMs" in event.metadata:  # a registry that started later knows only this
        return float(event.metadata["firstByteMs"])
    return None


def _show(function_id: str, wake: WakeNotice, found: list[Part], event: Event | None) -> None:
    from datetime import UTC

    from aetherless_cli.waterfall import lines

    at = wake.first_packet_time.ToDatetime(UTC).astimezone().isoformat(" ", "milliseconds")
    held = f"{wake.held_packets} packet{'' if wake.held_packets == 1 else 's'} held"
    print(f"{function_id}: woken by {wake.client or wake.cause} at {at}")
    print(f"instance {wake.instance}, wake {wake.sequence}, {held}\n")
    print("\n".join(lines(found)))
    print(f"\n{_end(wake, found)}")
    if event and event.trace_id:
        print(f"trace {event.trace_id}")


def _end(wake: WakeNotice, found: list[Part]) -> str:
    """Return how a wake ended."""
    last = found[-1]
    if wake.failure_reason:
        return f"failed: {wake.failure_reason}: {wake.failure_message}"
    if last.name == "answer":
        return f"first byte after {last.end:.2f} ms"
    seen = "no answer was seen" if wake.client else "nobody was waiting for an answer"
    return f"awake after {last.end:.2f} ms; {seen}"


def _data(
    function_id: str, wake: WakeNotice, found: list[Part], event: Event | None
) -> dict[str, Any]:
    from aetherless_cli.plain import to_plain

    return {
        "function": function_id,
        "wake": to_plain(wake),
        "parts": [
            {
                "name": part.name,
                "start_ms": round(part.start, 6),
                "duration_ms": round(part.end - part.start, 6),
            }
            for part in found
        ],
        "total_ms": round(found[-1].end, 6),
        "trace_id": event.trace_id if event else "",
    }
