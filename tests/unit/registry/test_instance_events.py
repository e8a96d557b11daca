# SPDX-License-Identifier: Apache-2.0
"""From what was seen of instances to events, in words and numbers."""

from __future__ import annotations

import pytest

from aetherless.registry.v1 import event_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry import instance_events
from aetherless_registry.event_store import EventClass
from aetherless_registry.wakes import Noticed, notice

AT = 10**18
WARNING = event_pb2.EVENT_SEVERITY_WARNING


def instance(**fields: object) -> instance_pb2.Instance:
    """Return an instance of the second revision of f."""
    made = instance_pb2.Instance(
        name="instances/f-r2-0",
        workload=instance_pb2.Workload(function_id="f", revision=2, memory_limit_bytes=32 << 20),
    )
    made.workload.restore_timeout.FromMilliseconds(15)
    made.MergeFrom(instance_pb2.Instance(**fields))  # type: ignore[arg-type]
    return made


def noticed(**fields: object) -> Noticed:
    """Return a wake that took 4.25 ms."""
    wake = instance_pb2.Wake(
        sequence=7, cause=instance_pb2.WAKE_CAUSE_PACKET, client="127.0.0.1:5", held_packets=1
    )
    wake.first_packet_time.FromNanoseconds(AT)
    wake.request_latency.FromMicroseconds(100)
    wake.restore_duration.FromMicroseconds(4250)
    wake.MergeFrom(instance_pb2.Wake(**fields))  # type: ignore[arg-type]
    return notice(instance(), wake)


def test_a_wake_says_who_woke_it_and_how_long_it_took() -> None:
    """As text and as numbers; it is one of many."""
    told = noticed()
    told.notice.first_byte.FromMicroseconds(6100)
    event = instance_events.woken(told)
    assert event.message == "woken by 127.0.0.1:5: restored in 4.2 ms, first byte after 6.1 ms"
    assert event.metadata == {
        "instance": "f-r2-0",
        "wake": "7",
        "cause": "packet",
        "client": "127.0.0.1:5",
        "heldPackets": "1",
        "restoreMs": "4.250",
        "firstByteMs": "6.100",
    }
    assert (event.reason, event.function_id, event.revision) == ("WOKEN", "f", 2)
    assert (event.time_ns, event.event_class) == (AT, EventClass.ROUTINE)


def test_an_end_at_the_limit_of_processes() -> None:
    """It is told with the limit; without one it is an end like others."""
    ended = instance_pb2.TreeEnd(
        cause=instance_pb2.TREE_END_CAUSE_EXITED, exit_status=1, process_limit=1024
    )
    event = instance_events.tree_ended(instance(last_end=ended))
    assert (event.reason, event.severity) == ("PROCESS_LIMIT_EXCEEDED", WARNING)
    assert event.metadata == {"instance": "f-r2-0", "status": "1", "signal": "0", "limit": "1024"}
    assert "1024 processes and threads, and ended with status 1" in event.message
    ended.process_limit = 0
    assert instance_events.tree_ended(instance(last_end=ended)).reason == "HANDLER_EXITED"


def test_a_wake_without_an_answer_has_no_first_byte() -> None:
    """One by command, for example."""
    event = instance_events.woken(noticed(cause=instance_pb2.WAKE_CAUSE_COMMAND))
    assert "firstByteMs" not in event.metadata
    assert event.metadata["cause"] == "command"


def test_a_late_wake_has_both_numbers() -> None:
    """The limit and the time taken; it is a warning that says what became of the client."""
    event = instance_events.woken(
        noticed(
            failure_reason="RESTORE_LATENCY_VIOLATION",
            failure_message="limit 15 ms, took 16.7 ms",
        )
    )
    assert (event.reason, event.severity) == ("RESTORE_LATENCY_VIOLATION", WARNING)
    assert (event.metadata["limitMs"], event.metadata["tookMs"]) == ("15", "4.350")
    assert event.message == (
        "the wake by 127.0.0.1:5 failed: limit 15 ms, took 16.7 ms; the client was reset"
    )
    assert event.event_class is EventClass.TROUBLE


def test_a_recovered_wake_says_how_many_are_missing() -> None:
    """Those before it, of which nobody knows more."""
    assert instance_events.woken(noticed(), unrecorded=3).metadata["unrecorded"] == "3"


@pytest.mark.parametrize(
    ("end", "reason", "message", "warns"),
    [
        (
            {"cause": instance_pb2.TREE_END_CAUSE_IDLE},
            "EVICTED",
            "evicted: it was idle",
            False,
        ),
        (
            {"cause": instance_pb2.TREE_END_CAUSE_COMMAND},
            "EVICTED",
            "evicted: by command",
            False,
        ),
        (
            {"cause": instance_pb2.TREE_END_CAUSE_MEMORY_LIMIT, "exit_status": -1, "signal": 9},
            "MEMORY_LIMIT_EXCEEDED",
            "it met its memory limit of 32 MiB and was ended; the next call wakes it",
            True,
        ),
        (
            {"cause": instance_pb2.TREE_END_CAUSE_EXITED, "exit_status": 3},
            "HANDLER_EXITED",
            "the program ended with status 3; the next call wakes it",
            True,
        ),
        (
            {"cause": instance_pb2.TREE_END_CAUSE_EXITED, "exit_status": -1, "signal": 11},
            "HANDLER_EXITED",
            "the program ended by signal 11; the next call wakes it",
            True,
        ),
    ],
)
def test_the_end_of_a_tree(end: dict[str, int], reason: str, message: str, *, warns: bool) -> None:
    """An eviction is as it should be, the rest is a warning."""
    made = instance(last_end=instance_pb2.TreeEnd(**end))  # type: ignore[arg-type]
    made.last_end.time.FromNanoseconds(AT)
    event = instance_events.tree_ended(made)
    assert (event.reason, event.message, event.time_ns) == (reason, message, AT)
    assert (event.severity == WARNING) is warns
    assert event.metadata["instance"] == "f-r2-0"
