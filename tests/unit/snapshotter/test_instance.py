# SPDX-License-Identifier: Apache-2.0
"""An instance's state, its wakes and its message."""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from hypothesis import given
from hypothesis import strategies as st

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_snapshotter import instance as instances
from aetherless_snapshotter.description import Description
from aetherless_snapshotter.sandbox import Endpoint
from aetherless_snapshotter.sandbox_events import (
    Armed,
    Evicted,
    Restoring,
    RootExited,
    SandboxEnded,
    SandboxState,
    SandboxStatus,
    Wake,
    WakeCause,
    WakeFailure,
    Woke,
)

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

OFFSET = 1_700_000_000_000_000_000
NOW = 1_700_000_100_000_000_000


def wake(
    sequence: int = 1, *, failure: WakeFailure = WakeFailure.NONE, restore_ms: int = 7
) -> Wake:
    """Return a wake of ``restore_ms`` that began at 1 s."""
    sent = 1_000_100_000
    answer = sent + restore_ms * 1_000_000
    return Wake(
        sequence=sequence,
        cause=WakeCause.PACKET,
        syn_ns=1_000_000_000,
        sent_ns=sent,
        answer_ns=answer,
        open_ns=answer + 50_000,
        held=1,
        client="198.18.1.1:4000",
        root_pid=10000 if failure is WakeFailure.NONE else 0,
        failure=failure,
        limit_ms=15,
        error="Error (x.c:1): flux is low\nError (y.c:2): Restoring FAILED.",
        cr_errno=0,
    )


@pytest.fixture
def clone(make_workload: Callable[..., instance_pb2.Workload]) -> instances.Instance:
    """Return a clone that was just made."""
    return instances.Instance(
        "hello-r1-0",
        make_workload(),
        instance_pb2.INSTANCE_ROLE_CLONE,
        "snapshots/hello-r1",
        ("/usr/bin/python3", "h.py"),
        5_000_000_000,
    )


def observe(instance: instances.Instance, *events: object) -> list[str]:
    """Report events; returns the state after each."""
    seen = []
    for event in events:
        instance.observe(event, OFFSET, NOW)  # type: ignore[arg-type]
        seen.append(instances.state_name(instance.state))
    return seen


def test_a_life(clone: instances.Instance) -> None:
    """Armed, woken, evicted, woken again, gone."""
    seen = observe(
        clone,
        Armed(1),
        Restoring(1, WakeCause.PACKET),
        Woke(wake(1)),
        Evicted(idle=True),
        Armed(2),
        Restoring(2, WakeCause.PACKET),
        Woke(wake(2)),
        SandboxEnded("out of luck"),
    )
    assert seen == [
        "ARMED",
        "RESTORING",
        "RUNNING",
        "RUNNING",
        "ARMED",
        "RESTORING",
        "RUNNING",
        "ENDED",
    ]
    message = clone.message()
    assert (message.wakes, message.failed_wakes, message.evictions) == (2, 0, 1)
    assert message.end_reason == "out of luck"
    assert message.sandbox_root_pid == 0


@pytest.mark.parametrize(
    ("event", "cause", "status"),
    [
        (Evicted(idle=True), instance_pb2.TREE_END_CAUSE_IDLE, (0, 0)),
        (Evicted(idle=False), instance_pb2.TREE_END_CAUSE_COMMAND, (0, 0)),
        (RootExited(9, 3, 0, out_of_memory=False), instance_pb2.TREE_END_CAUSE_EXITED, (3, 0)),
        (
            RootExited(9, -1, 9, out_of_memory=True),
            instance_pb2.TREE_END_CAUSE_MEMORY_LIMIT,
            (-1, 9),
        ),
    ],
)
def test_the_end_of_a_tree_says_what_ended_it(
    clone: instances.Instance,
    event: object,
    cause: instance_pb2.TreeEndCause.ValueType,
    status: tuple[int, int],
) -> None:
    """When, by what, and with which status; it stays known when the next tree runs."""
    observe(clone, Armed(1), Restoring(1, WakeCause.PACKET), Woke(wake(1)))
    assert not clone.message().HasField("last_end")
    observe(clone, event, Armed(2))
    end = clone.message().last_end
    assert (end.cause, end.exit_status, end.signal) == (cause, *status)
    assert end.time.ToNanoseconds() == NOW


def test_a_sandbox_that_ends_by_itself_is_lost(clone: instances.Instance) -> None:
    """One that was deleted is not."""
    other = replace(clone)
    observe(clone, Armed(1), SandboxEnded(""))
    other.become_ended("deleted")
    observe(other, SandboxEnded(""))
    assert (clone.message().lost, other.message().lost) == (True, False)


def test_a_failed_wake_leads_back_to_armed(clone: instances.Instance) -> None:
    """It is counted apart, with CRIU's words reduced to the cause."""
    observe(clone, Armed(1), Restoring(1, WakeCause.PACKET))
    assert observe(clone, Woke(wake(failure=WakeFailure.REFUSED)), Armed(2)) == [
        "RESTORING",
        "ARMED",
    ]
    last = clone.message().last_wake
    assert (last.failure_reason, last.failure_message) == ("RESTORE_FAILED", "flux is low")
    assert (clone.wakes, clone.failed_wakes) == (0, 1)
    assert not clone.message().HasField("restore_stats")


def test_a_late_wake_has_both_numbers(clone: instances.Instance) -> None:
    """The limit and the time taken."""
    observe(clone, Armed(1), Restoring(1, WakeCause.PACKET))
    observe(clone, Woke(wake(failure=WakeFailure.LATE, restore_ms=20)))
    last = clone.message().last_wake
    assert last.failure_reason == "RESTORE_LATENCY_VIOLATION"
    assert last.failure_message == "limit 15 ms, took 20.1 ms"


def test_times_of_a_wake() -> None:
    """Durations come from the monotonic clock, the time of day from the offset."""
    message = instances.to_wake(wake(restore_ms=7), OFFSET)
    assert message.first_packet_time.ToNanoseconds() == OFFSET + 1_000_000_000
    assert message.request_latency.ToMicroseconds() == 100
    assert message.restore_duration.ToMilliseconds() == 7
    assert message.total_duration.ToMicroseconds() == 7150
    assert message.client == "198.18.1.1:4000"


def test_transitions_of_our_own_are_checked(clone: instances.Instance) -> None:
    """A call can't take a step that the state does not allow; the error has both states."""
    with pytest.raises(FailedPrecondition) as caught:
        clone.become_running(10000)
    assert caught.value.metadata["from"] == "CREATED"
    assert caught.value.metadata["to"] == "RUNNING"
    clone.become_ended("deleted")
    clone.become_ended("again")
    assert clone.end_reason == "deleted"
    with pytest.raises(FailedPrecondition):
        clone.become_armed()


def test_an_unexpected_report_is_the_truth(clone: instances.Instance) -> None:
    """The sandbox knows better than we do."""
    assert observe(clone, Woke(wake())) == ["RUNNING"]
    assert clone.sandbox_root_pid == 10000


def test_the_end_of_a_golden_is_noted(clone: instances.Instance) -> None:
    """Who waits for readiness looks at it."""
    ended = RootExited(pid=10000, code=3, signal=0, out_of_memory=False)
    observe(clone, ended)
    assert clone.exited.is_set()
    assert clone.root_exit == ended


def test_adoption_takes_over_counts_and_wakes(clone: instances.Instance) -> None:
    """A report that the status already knew is not counted twice."""
    status = SandboxStatus(SandboxState.RUNNING, 10000, 9, 1, 8, 10, 9)
    clone.adopt(status, [wake(9), wake(10)], OFFSET)
    observe(clone, Woke(wake(10)))
    message = clone.message()
    assert (message.state, message.wakes) == (instances.RUNNING, 9)
    assert message.last_wake.sequence == 10
    assert message.restore_stats.count == 2


@given(st.lists(st.integers(0, 10**9), min_size=1, max_size=200), st.integers(1, 100))
def test_percentiles_are_nearest_rank(values: list[int], percent: int) -> None:
    """At least ``percent`` of the values are not above it, and it is one of them."""
    got = instances.percentile(values, percent)
    assert got in values
    assert sum(value <= got for value in values) * 100 >= percent * len(values)
    assert sum(value < got for value in values) * 100 < percent * len(values)


def test_a_description_survives_being_written(clone: instances.Instance, tmp_path: Path) -> None:
    """What a later process needs to adopt the instance."""
    endpoint = Endpoint("ae0", tmp_path / "map", 1, "198.18.255.1", "")
    description = Description(
        clone.workload, clone.role, clone.snapshot, clone.command, 7, endpoint
    )
    description.write(tmp_path / "i")
    assert Description.read(tmp_path / "i") == description
    (tmp_path / "i" / "description.json").write_text("{}")
    with pytest.raises(ValueError, match="description"):
        Description.read(tmp_path / "i")
