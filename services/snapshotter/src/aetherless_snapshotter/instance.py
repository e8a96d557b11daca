# SPDX-License-Identifier: Apache-2.0
"""One instance: what it runs, its state, and what was seen of it. No file, no process, no clock.

The state is changed by ``become_x`` only, each of which refuses an origin that does not lead there.
What the sandbox reports is the truth, so a report that does not fit is taken and logged.
"""

from __future__ import annotations

import threading
from collections import deque
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import structlog

from aetherless.snapshotter.v1 import instance_pb2
from aetherless_common.errors import FailedPrecondition
from aetherless_snapshotter import criu, errors
from aetherless_snapshotter.sandbox_events import (
    Armed,
    Event,
    Evicted,
    HandlerReady,
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
    from collections.abc import Sequence
    from typing import TypeAlias

    State: TypeAlias = instance_pb2.InstanceState.ValueType
    Role: TypeAlias = instance_pb2.InstanceRole.ValueType

log = structlog.get_logger()
#: How many of the newest wakes the percentiles are over.
KEPT_WAKES = 1024

CREATED = instance_pb2.INSTANCE_STATE_CREATED
STARTED = instance_pb2.INSTANCE_STATE_STARTED
ARMED = instance_pb2.INSTANCE_STATE_ARMED
RESTORING = instance_pb2.INSTANCE_STATE_RESTORING
RUNNING = instance_pb2.INSTANCE_STATE_RUNNING
ENDED = instance_pb2.INSTANCE_STATE_ENDED
TRYING = instance_pb2.INSTANCE_STATE_TRYING

#: How an adopted sandbox's state reads; one that clears a tree away goes on to ARMED by itself.
OBSERVED: dict[SandboxState, State] = {
    SandboxState.IDLE: CREATED,
    SandboxState.STARTED: STARTED,
    SandboxState.TRYING: TRYING,
    SandboxState.ARMED: ARMED,
    SandboxState.RESTORING: RESTORING,
    SandboxState.RUNNING: RUNNING,
    SandboxState.CLEARING: RUNNING,
    SandboxState.BACKOFF: RESTORING,
    SandboxState.ENDED: ENDED,
}


def state_name(state: State) -> str:
    """Return a state's name as people read it, for example "ARMED"."""
    return instance_pb2.InstanceState.Name(state).removeprefix("INSTANCE_STATE_")


def last_part(name: str) -> str:
    """Return the id in a resource name: "x" of "snapshots/x"."""
    return name.rpartition("/")[2]


@dataclass
class Instance:
    """One instance.

    Attributes:
        changed: guards all that changes after it was made, and is notified of every report.
        busy: held while a call works on the instance; a second one is refused.
        exited: set when the root process of a golden ended.
    """

    instance_id: str
    workload: instance_pb2.Workload
    role: Role
    snapshot: str
    command: tuple[str, ...]
    create_time_ns: int
    netns_path: str = ""
    channel_folder: str = ""
    init_pid: int = 0
    state: State = CREATED
    sandbox_root_pid: int = 0
    wakes: int = 0
    failed_wakes: int = 0
    evictions: int = 0
    last_wake: instance_pb2.Wake | None = None
    last_end: instance_pb2.TreeEnd | None = None
    end_reason: str = ""
    lost: bool = False
    root_exit: RootExited | None = None
    exited: threading.Event = field(default_factory=threading.Event)
    busy: threading.Lock = field(default_factory=threading.Lock)
    changed: threading.Condition = field(default_factory=threading.Condition)
    _restore_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_WAKES))
    _request_ns: deque[int] = field(default_factory=lambda: deque(maxlen=KEPT_WAKES))

    @property
    def name(self) -> str:
        """The resource name."""
        return f"instances/{self.instance_id}"

    @property
    def is_golden(self) -> bool:
        """Whether it is a tree that is really started, to be checkpointed."""
        return self.role == instance_pb2.INSTANCE_ROLE_GOLDEN

    # Transitions

    def become_started(self) -> None:
        """The golden's process tree begins to run."""
        self._become(STARTED, CREATED)

    def become_trying(self) -> None:
        """Restores of the snapshot are tried; nothing wakes it meanwhile."""
        self._become(TRYING, CREATED)
        self.exited.clear()
        self.root_exit = None

    def become_created(self) -> None:
        """The trial is over and nothing of it is left."""
        self._become(CREATED, TRYING)

    def become_armed(self) -> None:
        """The sandbox holds first packets; no process runs."""
        self._become(ARMED, CREATED, ARMED, RESTORING, RUNNING)
        self.sandbox_root_pid = 0

    def become_restoring(self) -> None:
        """CRIU was asked to restore."""
        self._become(RESTORING, ARMED)

    def become_running(self, root_pid: int) -> None:
        """The restored tree runs; ``root_pid`` is its root's id inside the sandbox."""
        self._become(RUNNING, RESTORING)
        self.sandbox_root_pid = root_pid

    def become_ended(self, reason: str) -> None:
        """Nothing runs in it any more, and nothing will; ending twice keeps the first reason."""
        if self.state == ENDED:
            return
        self._become(ENDED, CREATED, STARTED, TRYING, ARMED, RESTORING, RUNNING)
        self.sandbox_root_pid = 0
        self.end_reason = reason

    def _become(self, state: State, *origins: State) -> None:
        """Take a state that one of ``origins`` leads to."""
        if self.state not in origins:
            raise errors.invalid_state_transition(
                self.instance_id, state_name(self.state), state_name(state)
            )
        if state != self.state:
            log.info(
                "instance",
                instance=self.instance_id,
                before=state_name(self.state),
                after=state_name(state),
            )
        self.state = state

    # What the sandbox says

    def adopt(self, status: SandboxStatus, wakes: Sequence[Wake], offset_ns: int) -> None:
        """Take over what a living sandbox says about itself, in place of what was known."""
        trying = status.state is SandboxState.CLEARING and not status.generation
        self.state = TRYING if trying else OBSERVED[status.state]  # never armed: it goes on to IDLE
        self.sandbox_root_pid = status.root_pid
        for wake in wakes:
            self._note_wake(wake, offset_ns)
        self.wakes = status.wakes
        self.failed_wakes = status.failed_wakes
        self.evictions = status.evictions

    def observe(self, event: Event, offset_ns: int, now_ns: int) -> instance_pb2.Wake | None:
        """Follow a report of the sandbox; returns the wake when it was one.

        ``offset_ns`` is the realtime clock minus the monotonic one, to date the report's times;
        ``now_ns`` is the realtime clock, to date what the report gives no time of.
        """
        before = self.state
        if isinstance(event, Evicted | RootExited):
            self.last_end = to_tree_end(event, now_ns)
        try:
            return self._follow(event, offset_ns)
        except FailedPrecondition:
            log.warning("unexpected report", instance=self.instance_id, report=repr(event))
            self.state = _state_after(event, before)
            self.sandbox_root_pid = event.wake.root_pid if isinstance(event, Woke) else 0
            return to_wake(event.wake, offset_ns) if isinstance(event, Woke) else None

    def _follow(self, event: Event, offset_ns: int) -> instance_pb2.Wake | None:
        """Change the state as the report says."""
        match event:
            case Armed():
                self.become_armed()
            case Restoring():
                self.become_restoring()
            case Woke(wake=wake):
                noted = self._note_wake(wake, offset_ns)
                if wake.ok:
                    self.become_running(wake.root_pid)
                return noted
            case Evicted():
                self.evictions += 1
            case RootExited():
                self.root_exit = event
                self.exited.set()
            case SandboxEnded(last_words=words):
                self.exited.set()
                self.lost = self.state != ENDED
                self.become_ended(words or "its init was killed")
            case HandlerReady():
                log.info("handler says READY", instance=self.instance_id)
        return None

    def _note_wake(self, wake: Wake, offset_ns: int) -> instance_pb2.Wake:
        """Count a wake."""
        if self.last_wake is not None and wake.sequence <= self.last_wake.sequence:
            return self.last_wake  # told twice, by the adopted status and by a report
        self.last_wake = to_wake(wake, offset_ns)
        if wake.ok:
            self.wakes += 1
            self._restore_ns.append(wake.answer_ns - wake.sent_ns)
            self._request_ns.append(wake.sent_ns - wake.syn_ns)
        else:
            self.failed_wakes += 1
        return self.last_wake

    # Message

    def message(self) -> instance_pb2.Instance:
        """Return the instance as the contract has it, without what only /proc knows."""
        with self.changed:
            message = instance_pb2.Instance(
                name=self.name,
                workload=self.workload,
                role=self.role,
                state=self.state,
                snapshot=self.snapshot,
                netns_path=self.netns_path,
                channel_folder=self.channel_folder,
                init_pid=self.init_pid,
                sandbox_root_pid=self.sandbox_root_pid,
                command=self.command,
                wakes=self.wakes,
                failed_wakes=self.failed_wakes,
                evictions=self.evictions,
                last_wake=self.last_wake,
                last_end=self.last_end,
                end_reason=self.end_reason,
                lost=self.lost,
            )
            message.create_time.FromNanoseconds(self.create_time_ns)
            if self._restore_ns:
                message.restore_stats.CopyFrom(self._stats())
            return message

    def _stats(self) -> instance_pb2.RestoreStats:
        """Return percentiles over the kept wakes."""
        stats = instance_pb2.RestoreStats(count=len(self._restore_ns))
        stats.restore_p50.FromNanoseconds(percentile(self._restore_ns, 50))
        stats.restore_p99.FromNanoseconds(percentile(self._restore_ns, 99))
        stats.request_p50.FromNanoseconds(percentile(self._request_ns, 50))
        stats.request_p99.FromNanoseconds(percentile(self._request_ns, 99))
        return stats


def percentile(values: Sequence[int], percent: int) -> int:
    """Return the nearest-rank percentile of at least one value."""
    ordered = sorted(values)
    rank = -(-len(ordered) * percent // 100)
    return ordered[max(rank, 1) - 1]


def to_wake(wake: Wake, offset_ns: int) -> instance_pb2.Wake:
    """Return a wake as the contract has it."""
    message = instance_pb2.Wake(
        sequence=wake.sequence,
        cause=instance_pb2.WAKE_CAUSE_PACKET
        if wake.cause is WakeCause.PACKET
        else instance_pb2.WAKE_CAUSE_COMMAND,
        held_packets=wake.held,
        client=wake.client,
    )
    message.first_packet_time.FromNanoseconds(wake.syn_ns + offset_ns)
    message.request_latency.FromNanoseconds(max(0, wake.sent_ns - wake.syn_ns))
    message.restore_duration.FromNanoseconds(max(0, wake.answer_ns - wake.sent_ns))
    message.total_duration.FromNanoseconds(max(0, wake.open_ns - wake.syn_ns))
    message.failure_reason, message.failure_message = _failure(wake)
    return message


def to_tree_end(event: Evicted | RootExited, now_ns: int) -> instance_pb2.TreeEnd:
    """Return the end of a tree as the contract has it."""
    message = instance_pb2.TreeEnd()
    message.time.FromNanoseconds(now_ns)
    if isinstance(event, Evicted):
        idle, command = instance_pb2.TREE_END_CAUSE_IDLE, instance_pb2.TREE_END_CAUSE_COMMAND
        message.cause = idle if event.idle else command
        return message
    message.cause = instance_pb2.TREE_END_CAUSE_EXITED
    if event.out_of_memory:
        message.cause = instance_pb2.TREE_END_CAUSE_MEMORY_LIMIT
    message.exit_status, message.signal = event.code, event.signal
    message.process_limit = event.process_limit
    return message


def _failure(wake: Wake) -> tuple[str, str]:
    """Return a failed wake's reason and detail; two empty strings for a good one."""
    match wake.failure:
        case WakeFailure.NONE:
            return "", ""
        case WakeFailure.LATE:
            took = (wake.answer_ns - wake.syn_ns) / 1e6
            return "RESTORE_LATENCY_VIOLATION", f"limit {wake.limit_ms} ms, took {took:.1f} ms"
        case WakeFailure.OUT_OF_MEMORY:
            return "MEMORY_LIMIT_EXCEEDED", "the memory limit was met during the restore"
        case _:
            return "RESTORE_FAILED", criu.cause_of(wake.error, wake.error)


def _state_after(event: Event, before: State) -> State:
    """Return the state that a report leads to, wherever it comes from."""
    match event:
        case Armed():
            return ARMED
        case Restoring():
            return RESTORING
        case Woke(wake=wake):
            return RUNNING if wake.ok else before
        case SandboxEnded():
            return ENDED
        case _:
            return before
