# SPDX-License-Identifier: Apache-2.0
"""From the init's lines to the typed values of ``sandbox_events``."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aetherless_snapshotter.sandbox_events import (
    Armed,
    Event,
    Evicted,
    HandlerReady,
    Restoring,
    RootExited,
    SandboxState,
    SandboxStatus,
    Wake,
    WakeCause,
    WakeFailure,
    Woke,
)

if TYPE_CHECKING:
    from aetherless_snapshotter.control import Line


def read_event(line: Line) -> Event:
    """Return what a report says.

    Raises:
        ValueError: the report is not one of the protocol's.
    """
    match line.verb:
        case "armed":
            return Armed(line.number("generation"))
        case "restoring":
            return Restoring(line.number("sequence"), WakeCause(line.values["cause"]))
        case "wake":
            return Woke(read_wake(line))
        case "evicted":
            return Evicted(idle=line.number("idle") == 1)
        case "exited":
            return RootExited(
                line.number("pid"),
                line.number("code"),
                line.number("signal"),
                out_of_memory=line.number("oom") == 1,
            )
        case "ready":
            return HandlerReady()
    raise ValueError(f"unknown report {line.verb}")


def read_wake(line: Line) -> Wake:
    """Return the wake that a line describes."""
    return Wake(
        sequence=line.number("sequence"),
        cause=WakeCause(line.values["cause"]),
        syn_ns=line.number("syn"),
        sent_ns=line.number("sent"),
        answer_ns=line.number("answer"),
        open_ns=line.number("open"),
        held=line.number("held"),
        client=line.values.get("client", ""),
        root_pid=line.number("root"),
        failure=WakeFailure(line.values["failure"]),
        limit_ms=line.number("limit-ms"),
        error=line.values.get("error", ""),
        cr_errno=line.number("cr-errno"),
    )


def read_status(line: Line) -> SandboxStatus:
    """Return what the answer to ``status`` says."""
    return SandboxStatus(
        state=SandboxState(line.values["state"]),
        root_pid=line.number("root"),
        wakes=line.number("wakes"),
        failed_wakes=line.number("failed"),
        evictions=line.number("evictions"),
        sequence=line.number("sequence"),
        generation=line.number("generation"),
    )
