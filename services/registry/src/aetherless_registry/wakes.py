# SPDX-License-Identifier: Apache-2.0
"""Joins what the snapshotter and the netplane tell of the same wake. Pure: the time is told."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless.snapshotter.v1 import instance_pb2
from aetherless_registry import names

if TYPE_CHECKING:
    from aetherless.netplane.v1 import route_pb2

# How long a wake waits for its first answer, and a first answer for its wake.
PATIENCE_S = 2.0
# Both name the time of the first packet; they convert the kernel's clock at different moments.
TOLERANCE_NS = 10_000_000

_CAUSES = {
    instance_pb2.WAKE_CAUSE_PACKET: "packet",
    instance_pb2.WAKE_CAUSE_COMMAND: "command",
}


@dataclass(frozen=True, slots=True)
class Noticed:
    """A wake to be told, with the program that it woke."""

    workload: instance_pb2.Workload
    notice: function_pb2.WakeNotice

    @property
    def function_id(self) -> str:
        """The function that was woken."""
        return self.workload.function_id


@dataclass(slots=True)
class _Waiting:
    """One half of a wake."""

    endpoint: str
    first_packet_ns: int
    until: float


@dataclass(slots=True)
class _Wake(_Waiting):
    """A wake without its first answer."""

    noticed: Noticed


@dataclass(slots=True)
class _Answer(_Waiting):
    """A first answer without its wake."""

    answer: route_pb2.FirstAnswer


class WakeJoiner:
    """Holds the halves of wakes. ``now`` is in seconds of any clock that does not jump."""

    def __init__(self) -> None:
        self._wakes: list[_Wake] = []
        self._answers: list[_Answer] = []

    def wake(
        self, instance: instance_pb2.Instance, wake: instance_pb2.Wake, now: float
    ) -> list[Noticed]:
        """Take a wake of an instance; return the wakes to be told now."""
        noticed = notice(instance, wake)
        endpoint = names.ENDPOINTS + noticed.notice.instance
        first_packet_ns = wake.first_packet_time.ToNanoseconds()
        if wake.failure_reason or wake.cause != instance_pb2.WAKE_CAUSE_PACKET:
            return [noticed]  # no packet came, or none will be answered
        for answer in self._answers:
            if _same(answer, endpoint, first_packet_ns):
                self._answers.remove(answer)
                noticed.notice.first_byte.CopyFrom(answer.answer.first_byte)
                return [noticed]
        self._wakes.append(_Wake(endpoint, first_packet_ns, now + PATIENCE_S, noticed))
        return []

    def first_answer(self, answer: route_pb2.FirstAnswer, now: float) -> list[Noticed]:
        """Take a first answer; return the wakes to be told now."""
        first_packet_ns = answer.first_packet_time.ToNanoseconds()
        for wake in self._wakes:
            if _same(wake, answer.endpoint, first_packet_ns):
                self._wakes.remove(wake)
                wake.noticed.notice.first_byte.CopyFrom(answer.first_byte)
                return [wake.noticed]
        waiting = _Answer(answer.endpoint, first_packet_ns, now + PATIENCE_S, answer)
        self._answers.append(waiting)
        return []

    def expire(self, now: float) -> list[Noticed]:
        """Return the wakes whose answer did not come in time; drop answers without a wake."""
        self._answers = [answer for answer in self._answers if answer.until > now]
        late = [wake.noticed for wake in self._wakes if wake.until <= now]
        self._wakes = [wake for wake in self._wakes if wake.until > now]
        return late

    def next_expiry(self) -> float | None:
        """Return when ``expire`` has something to do; None while nothing waits."""
        return min((each.until for each in (*self._wakes, *self._answers)), default=None)


def _same(waiting: _Waiting, endpoint: str, first_packet_ns: int) -> bool:
    """Tell whether two halves are of one wake."""
    near = abs(waiting.first_packet_ns - first_packet_ns) <= TOLERANCE_NS
    return near and waiting.endpoint == endpoint


def are_one(told: function_pb2.WakeNotice, other: function_pb2.WakeNotice) -> bool:
    """Tell whether two notices of one instance are of one wake; numbers begin anew with it."""
    times = (told.first_packet_time.ToNanoseconds(), other.first_packet_time.ToNanoseconds())
    return told.sequence == other.sequence and abs(times[0] - times[1]) <= TOLERANCE_NS


def notice(instance: instance_pb2.Instance, wake: instance_pb2.Wake) -> Noticed:
    """Return a wake as watchers see it, without its first byte."""
    told = function_pb2.WakeNotice(
        cause=_CAUSES.get(wake.cause, ""),
        client=wake.client,
        restore_duration=wake.restore_duration,
        failure_reason=wake.failure_reason,
        failure_message=wake.failure_message,
        first_packet_time=wake.first_packet_time,
        request_latency=wake.request_latency,
        total_duration=wake.total_duration,
        held_packets=wake.held_packets,
        instance=names.bare(instance.name, names.INSTANCES),
        sequence=wake.sequence,
    )
    return Noticed(instance.workload, told)
