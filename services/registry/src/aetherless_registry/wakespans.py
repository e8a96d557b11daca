# SPDX-License-Identifier: Apache-2.0
"""Wakes as traces, of the kernel's times: no service was at work when they happened.

The registry records them, since it alone has both halves: what the sandbox's init reported to the
snapshotter, and when the netplane's programs saw the first answer.
"""

from __future__ import annotations

import threading
import time
from typing import TYPE_CHECKING

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common import tracing
from aetherless_common.errors import Internal

if TYPE_CHECKING:
    from aetherless.registry.v1 import function_pb2
    from aetherless_registry.wakes import Noticed

# How long a command's span is kept for the wake that it asked for, in seconds.
COMMAND_S = 10.0
SNAPSHOTTER = "snapshotter.aetherless"


class WakeSpans:
    """Records wakes. Safe for use by many threads."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._commands: dict[str, tuple[tracing.Span, float]] = {}

    def commanded(self, instance: str) -> None:
        """Take note that the span that goes on in this thread asks for a wake of an instance."""
        now = time.monotonic()
        with self._lock:
            waiting = self._commands.items()
            self._commands = {each: kept for each, kept in waiting if now < kept[1]}
            self._commands[instance] = (tracing.current(), now + COMMAND_S)

    def record(self, noticed: Noticed) -> tracing.Span:
        """Record a wake that is over; return its span."""
        notice = noticed.notice
        cause = self._cause(notice)
        if not tracing.recording():
            return cause
        begun = notice.first_packet_time.ToNanoseconds()
        wake = tracing.begin("wake", "server", _attributes(noticed), parent=cause, at_ns=begun)
        for name, start, end in parts(notice):
            part = tracing.begin(name, parent=wake, at_ns=begun + start)
            if name == "restore":
                _fail(part, noticed)
            part.end(begun + end)
        _fail(wake, noticed)
        wake.end(begun + max(end for _, _, end in parts(notice)))
        return wake

    def _cause(self, notice: function_pb2.WakeNotice) -> tracing.Span:
        """Return the span of the command that asked for a wake; nobody's for a packet."""
        with self._lock:
            span, until = self._commands.pop(notice.instance, (tracing.NOBODY, 0.0))
        known = notice.cause == "command" and time.monotonic() < until
        return span if known else tracing.NOBODY


def parts(notice: function_pb2.WakeNotice) -> list[tuple[str, int, int]]:
    """Return what a wake consists of: name, begin and end in nanoseconds from its first packet."""
    asked = notice.request_latency.ToNanoseconds()
    restored = asked + notice.restore_duration.ToNanoseconds()
    opened = max(restored, notice.total_duration.ToNanoseconds())
    failed = bool(notice.failure_reason)
    found = [
        ("hold", 0, asked),
        ("restore", asked, restored),
        ("reset" if failed else "replay", restored, opened),
    ]
    if notice.HasField("first_byte"):
        answered = notice.first_byte.ToNanoseconds()
        found.append(("answer", min(opened, answered), answered))
    return found


def _attributes(noticed: Noticed) -> tracing.Attributes:
    """Return what is known of a wake, as the conventions for functions and clients name it."""
    notice, workload = noticed.notice, noticed.workload
    http = workload.warmup.kind == instance_pb2.WARMUP_KIND_HTTP and notice.cause == "packet"
    attributes: dict[str, str | bool | int | float] = {
        "faas.name": workload.function_id,
        "faas.invoked_name": workload.function_id,
        "faas.version": str(workload.revision),
        "faas.instance": notice.instance,
        "faas.trigger": "http" if http else "other",
        "faas.coldstart": True,
        "faas.max_memory": workload.memory_limit_bytes,
        "aetherless.wake.sequence": notice.sequence,
        "aetherless.wake.cause": notice.cause,
        "aetherless.wake.held_packets": notice.held_packets,
        "aetherless.wake.restore_limit_ms": workload.restore_timeout.ToNanoseconds() / 1e6,
    }
    if workload.trigger_port:
        attributes["server.port"] = workload.trigger_port
    address, _, port = notice.client.rpartition(":")
    if address:
        attributes |= {"client.address": address.strip("[]"), "client.port": int(port)}
    return attributes


def _fail(span: tracing.Span, noticed: Noticed) -> None:
    """Mark a part of a wake that failed, with the reason that its event has."""
    notice = noticed.notice
    if notice.failure_reason:
        metadata = {"function": noticed.function_id, "instance": notice.instance}
        message = notice.failure_message or notice.failure_reason
        span.fail(Internal(notice.failure_reason, message, metadata, domain=SNAPSHOTTER))
