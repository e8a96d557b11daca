# SPDX-License-Identifier: Apache-2.0
"""What a sandbox's init reports, as typed values. Times are of CLOCK_MONOTONIC, in nanoseconds."""

from __future__ import annotations

import signal
from dataclasses import dataclass
from enum import StrEnum
from typing import TypeAlias


class SandboxState(StrEnum):
    """What the init does (README.md of ``init/`` has the picture)."""

    IDLE = "idle"  # the sandbox exists, nothing runs and nothing is held
    STARTED = "started"  # a program that ``spawn`` started runs
    TRYING = "trying"  # restores are tried: CRIU waits, works, or has restored a tree
    ARMED = "armed"  # first packets are held; the next one restores
    RESTORING = "restoring"  # CRIU was asked and has not answered
    RUNNING = "running"  # the restored tree runs
    CLEARING = "clearing"  # a tree was killed and is being reaped
    BACKOFF = "backoff"  # restores failed repeatedly; clients are reset until the next arming
    ENDED = "ended"  # the init is gone (never said by the init itself)


class WakeCause(StrEnum):
    """What asked for a restore."""

    PACKET = "packet"
    COMMAND = "command"


class WakeFailure(StrEnum):
    """Why a wake failed; NONE when it did not."""

    NONE = "none"
    LATE = "late"  # CRIU had not answered when the deadline came
    REFUSED = "refused"  # CRIU answered that it could not
    DIED = "died"  # CRIU ended without an answer
    OUT_OF_MEMORY = "oom"  # the memory limit was met before CRIU answered


@dataclass(frozen=True)
class Wake:
    """One wake, successful or not.

    Attributes:
        sequence: counts the wakes of this sandbox from 1, failed ones included.
        cause: what asked for it.
        syn_ns: the kernel's receive time of the first held frame; the command's time for COMMAND.
        sent_ns: when the request had been sent to CRIU.
        answer_ns: when CRIU's answer, its end or the deadline was seen.
        open_ns: when the gate was open and the held frames were sent again.
        held: how many frames were held and sent again.
        client: the first frame's source as "address:port" or "[address]:port"; "" for COMMAND.
        root_pid: the restored root's pid inside the sandbox; 0 on failure.
        failure: NONE, or why it failed.
        limit_ms: the restore's deadline.
        error: CRIU's own words (its answer's cr_errmsg, else its last lines); "" when it said none.
        cr_errno: CRIU's cr_errno, 0 when there is none.
    """

    sequence: int
    cause: WakeCause
    syn_ns: int
    sent_ns: int
    answer_ns: int
    open_ns: int
    held: int
    client: str
    root_pid: int
    failure: WakeFailure
    limit_ms: int
    error: str
    cr_errno: int

    @property
    def ok(self) -> bool:
        """Whether the restore succeeded in time."""
        return self.failure is WakeFailure.NONE


@dataclass(frozen=True)
class Armed:
    """The sandbox holds first packets, and the next one wakes it."""

    generation: int


@dataclass(frozen=True)
class Restoring:
    """A wake began; ``Woke`` follows."""

    sequence: int
    cause: WakeCause


@dataclass(frozen=True)
class Woke:
    """A wake ended, well or badly."""

    wake: Wake


@dataclass(frozen=True)
class Evicted:
    """The running tree was ended because it was idle or by command; ``Armed`` follows."""

    idle: bool


@dataclass(frozen=True)
class RootExited:
    """The root process ended by itself, spawned or restored (then ``Armed`` follows).

    Attributes:
        code: the exit status, -1 when a signal ended it.
        signal: the signal that ended it, 0 when it exited.
        out_of_memory: the memory limit was met.
        process_limit: the limit of processes and threads, if it was met since the last such end.
    """

    pid: int
    code: int
    signal: int
    out_of_memory: bool
    process_limit: int = 0


@dataclass(frozen=True)
class HandlerReady:
    """The handler sent READY on its AETHER_SOCKET."""


@dataclass(frozen=True)
class SandboxEnded:
    """The init is gone.

    Attributes:
        last_words: what it wrote before it died; "" when it was killed from outside.
    """

    last_words: str


Event: TypeAlias = Armed | Restoring | Woke | Evicted | RootExited | HandlerReady | SandboxEnded


@dataclass(frozen=True)
class SandboxStatus:
    """What the init says about itself now.

    Attributes:
        state: what it does.
        root_pid: the root process's pid inside the sandbox, 0 while none runs.
        wakes: restores that succeeded.
        failed_wakes: restores that failed or were late.
        evictions: evictions, idle ones and by command.
        sequence: the newest wake's number.
        generation: how often it was armed.
    """

    state: SandboxState
    root_pid: int
    wakes: int
    failed_wakes: int
    evictions: int
    sequence: int
    generation: int


def describe_exit(ended: RootExited | None) -> str:
    """Return how a process ended, in words."""
    if ended is None:
        return "its sandbox"
    if ended.signal:
        return signal.Signals(ended.signal).name
    return f"status {ended.code}"


@dataclass(frozen=True)
class Quiesced:
    """How many TCP connections with the outside were ended before a checkpoint."""

    inbound: int
    outbound: int
