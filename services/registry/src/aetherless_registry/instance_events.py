# SPDX-License-Identifier: Apache-2.0
"""From what was seen of instances to events: woken, evicted, ended, lost. Pure."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from aetherless.registry.v1 import event_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry import names
from aetherless_registry.event_store import EventClass, EventRecord

if TYPE_CHECKING:
    from google.protobuf.duration_pb2 import Duration

    from aetherless_registry.wakes import Noticed

WARNING = event_pb2.EVENT_SEVERITY_WARNING
NORMAL = event_pb2.EVENT_SEVERITY_NORMAL
TOO_LATE = "RESTORE_LATENCY_VIOLATION"
_EVICTIONS = {
    instance_pb2.TREE_END_CAUSE_IDLE: ("idle", "it was idle"),
    instance_pb2.TREE_END_CAUSE_COMMAND: ("command", "by command"),
}


def wakes_of(instance: str) -> str:
    """Return the subject of the events on an instance's wakes."""
    return f"wakes/{instance}"


def ends_of(instance: str) -> str:
    """Return the subject of the events on the ends of an instance's trees."""
    return f"ends/{instance}"


def woken(noticed: Noticed, unrecorded: int = 0) -> EventRecord:
    """Return the event of a wake, which failed or not.

    Args:
        noticed: the wake.
        unrecorded: how many wakes of that instance went before it that nobody listened to.
    """
    notice = noticed.notice
    by = notice.client or notice.cause
    metadata = {
        "instance": notice.instance,
        "wake": notice.sequence,
        "cause": notice.cause,
        "client": notice.client,
        "heldPackets": notice.held_packets,
        "restoreMs": _text(notice.restore_duration),
    }
    if notice.HasField("first_byte"):
        metadata["firstByteMs"] = _text(notice.first_byte)
    if unrecorded:
        metadata["unrecorded"] = unrecorded
    if notice.failure_reason:
        return _failed_wake(noticed, by, metadata)
    text = f"woken by {by}: restored in {_ms(notice.restore_duration):.1f} ms"
    if notice.HasField("first_byte"):
        text += f", first byte after {_ms(notice.first_byte):.1f} ms"
    return _wake_event(noticed, "WOKEN", text, metadata)


def _failed_wake(noticed: Noticed, by: str, metadata: dict[str, Any]) -> EventRecord:
    """Return the event of a wake that failed; one that came too late has both numbers."""
    notice = noticed.notice
    why = notice.failure_message or notice.failure_reason
    if notice.failure_reason == TOO_LATE:
        took = _ms(notice.request_latency) + _ms(notice.restore_duration)
        metadata["limitMs"] = f"{_ms(noticed.workload.restore_timeout):g}"
        metadata["tookMs"] = f"{took:.3f}"
    reset = "; the client was reset" if notice.client else ""
    text = f"the wake by {by} failed: {why}{reset}"
    return _wake_event(noticed, notice.failure_reason, text, metadata)


def _wake_event(
    noticed: Noticed, reason: str, message: str, metadata: dict[str, Any]
) -> EventRecord:
    """Return an event on a wake."""
    failed = bool(noticed.notice.failure_reason)
    return EventRecord(
        function_id=noticed.function_id,
        time_ns=noticed.notice.first_packet_time.ToNanoseconds(),
        reason=reason,
        message=message,
        severity=WARNING if failed else NORMAL,
        revision=noticed.workload.revision,
        metadata={key: str(value) for key, value in metadata.items()},
        event_class=EventClass.TROUBLE if failed else EventClass.ROUTINE,
        subject=wakes_of(noticed.notice.instance),
    )


def tree_ended(instance: instance_pb2.Instance) -> EventRecord:
    """Return the event of the newest end of an instance's tree."""
    end = instance.last_end
    if end.cause in _EVICTIONS:
        cause, how = _EVICTIONS[end.cause]
        return _end_event(instance, "EVICTED", f"evicted: {how}", {"cause": cause})
    if end.cause == instance_pb2.TREE_END_CAUSE_MEMORY_LIMIT:
        limit = instance.workload.memory_limit_bytes
        text = f"it met its memory limit of {limit >> 20} MiB and was ended; the next call wakes it"
        return _end_event(instance, "MEMORY_LIMIT_EXCEEDED", text, {"limitBytes": limit})
    how = f"by signal {end.signal}" if end.signal else f"with status {end.exit_status}"
    metadata = {"status": end.exit_status, "signal": end.signal}
    if limit := end.process_limit:
        text = (
            f"it met its limit of {limit} processes and threads, and ended {how};"
            " the next call wakes it"
        )
        return _end_event(instance, "PROCESS_LIMIT_EXCEEDED", text, {**metadata, "limit": limit})
    text = f"the program ended {how}; the next call wakes it"
    return _end_event(instance, "HANDLER_EXITED", text, metadata)


def _end_event(
    instance: instance_pb2.Instance, reason: str, message: str, metadata: dict[str, Any]
) -> EventRecord:
    """Return an event on the end of a tree."""
    name = names.bare(instance.name, names.INSTANCES)
    evicted = instance.last_end.cause in _EVICTIONS
    return EventRecord(
        function_id=instance.workload.function_id,
        time_ns=instance.last_end.time.ToNanoseconds(),
        reason=reason,
        message=message,
        severity=NORMAL if evicted else WARNING,
        revision=instance.workload.revision,
        metadata={"instance": name, **{key: str(value) for key, value in metadata.items()}},
        event_class=EventClass.ROUTINE if evicted else EventClass.TROUBLE,
        subject=ends_of(name),
    )


def lost(instance: instance_pb2.Instance, why: str, now_ns: int) -> EventRecord:
    """Return the event of an instance that is gone and was not to go."""
    name = names.bare(instance.name, names.INSTANCES)
    return EventRecord(
        function_id=instance.workload.function_id,
        time_ns=now_ns,
        reason="INSTANCE_LOST",
        message=f"the instance {name} is lost: {why}; another one is made",
        severity=WARNING,
        revision=instance.workload.revision,
        metadata={"instance": name, "cause": why},
    )


def _ms(duration: Duration) -> float:
    """Return a duration in milliseconds."""
    return duration.ToNanoseconds() / 1e6


def _text(duration: Duration) -> str:
    """Return a duration in milliseconds, to a microsecond."""
    return f"{_ms(duration):.3f}"
