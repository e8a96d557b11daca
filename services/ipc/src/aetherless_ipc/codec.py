# SPDX-License-Identifier: Apache-2.0
"""Requests of the contract to what the broker takes, and channels to what the contract has."""

from __future__ import annotations

import re
import time
from typing import TYPE_CHECKING

from aetherless.ipc.v1 import channel_pb2
from aetherless_common.errors import invalid_argument
from aetherless_ipc.channel import Declaration
from aetherless_ring.layout import ring_problem

if TYPE_CHECKING:
    from collections.abc import Iterable

    from google.protobuf import duration_pb2

    from aetherless.ipc.v1 import ipc_service_pb2 as pb
    from aetherless_ipc.admission import Admission
    from aetherless_ipc.channel import Channel

CHANNEL_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
# A check of a function has its own suffix.
FUNCTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}(\.check[0-9a-f]{6})?")
INSTANCE_ID = re.compile(r"[A-Za-z0-9_-][A-Za-z0-9_.-]{0,99}")
DEFAULT_TIMEOUT_MS = 30_000
LONGEST_TIMEOUT_S = 900.0
CHANGEABLE = ("instance", "timeout", "may_call", "buffer_size_bytes")


def declaration(request: pb.CreateChannelRequest, default_ring_bytes: int) -> Declaration:
    """Return what a channel is asked to be.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    channel = request.channel
    _check_id("channel_id", request.channel_id, CHANNEL_ID)
    _check_id("channel.function_id", channel.function_id, FUNCTION_ID)
    return Declaration(
        channel_id=request.channel_id,
        function_id=channel.function_id,
        ring_bytes=_ring_bytes(channel, default_ring_bytes),
        created_ns=time.time_ns(),
        timeout_ms=_timeout_ms(channel),
        may_call=_may_call(channel.may_call),
        instance=_instance(channel),
    )


def changes(request: pb.UpdateChannelRequest, default_ring_bytes: int) -> dict[str, object]:
    """Return the fields of a declaration that are to change.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    channel, made = request.channel, dict[str, object]()
    named = list(request.update_mask.paths)
    if not request.HasField("update_mask"):
        named = [field.name for field, _ in channel.ListFields() if field.name in CHANGEABLE]
    for path in named:
        if path == "instance":
            made["instance"] = _instance(channel)
        elif path == "timeout":
            made["timeout_ms"] = _timeout_ms(channel)
        elif path == "may_call":
            made["may_call"] = _may_call(channel.may_call)
        elif path == "buffer_size_bytes":
            made["ring_bytes"] = _ring_bytes(channel, default_ring_bytes)
        else:
            raise invalid_argument("update_mask", f"{path} can't be changed")
    return made


def encode(channel: Channel) -> channel_pb2.Channel:
    """Return a channel as the contract has it."""
    declared, current = channel.declared, channel.current
    encoded = channel_pb2.Channel(
        name=f"channels/{declared.channel_id}",
        function_id=declared.function_id,
        buffer_size_bytes=declared.ring_bytes,
        region_size_bytes=channel.layout.region_bytes,
        generation=channel.generation.number,
        attached=bool(current and current.attachment),
        socket_path=str(current.path) if current else "",
        instance=f"instances/{declared.instance}" if declared.instance else "",
        may_call=declared.may_call,
        admissions=[_admission(each) for _, each in sorted(channel.admissions.items())],
        stats=_stats(channel),
    )
    encoded.timeout.FromMilliseconds(declared.timeout_ms)
    encoded.create_time.FromNanoseconds(declared.created_ns)
    return encoded


def channel_id(field: str, name: str) -> str:
    """Return the id in "channels/{channel}".

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    return named(field, name, "channels/", CHANNEL_ID)


def instance_id(field: str, name: str) -> str:
    """Return the id in "instances/{instance}".

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    return named(field, name, "instances/", INSTANCE_ID)


def absolute(field: str, path: str) -> str:
    """Return an absolute path.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    if not path.startswith("/") or "\0" in path:
        raise invalid_argument(field, "must be an absolute path")
    return path


def seconds(field: str, duration: duration_pb2.Duration) -> float:
    """Return a duration of 0 to 15 minutes.

    Raises:
        InvalidArgument: INVALID_ARGUMENT.
    """
    value: float = duration.seconds + duration.nanos / 1e9
    if not 0 <= value <= LONGEST_TIMEOUT_S:
        raise invalid_argument(field, f"must be 0 to {LONGEST_TIMEOUT_S:.0f} s")
    return value


def _admission(admission: Admission) -> channel_pb2.Admission:
    """Return an admission as the contract has it."""
    attachment = admission.attachment
    return channel_pb2.Admission(
        instance=f"instances/{admission.instance}",
        folder=str(admission.folder),
        socket_path=str(admission.path),
        attached=attachment is not None,
        generation=admission.generation,
        pid=attachment.peer.pid if attachment else 0,
    )


def _stats(channel: Channel) -> channel_pb2.ChannelStats:
    """Return a channel's counts as the contract has them."""
    attached = [each.attachment for each in tuple(channel.admissions.values()) if each.attachment]
    return channel_pb2.ChannelStats(
        in_flight=sum(len(attachment.in_flight) for attachment in attached),
        waiting=channel.delivery.waiting,
        **channel.delivery.stats.snapshot(),
    )


def _ring_bytes(channel: channel_pb2.Channel, default: int) -> int:
    """Return the size of a ring."""
    size = channel.buffer_size_bytes or default
    if problem := ring_problem(size):
        raise invalid_argument("channel.buffer_size_bytes", problem)
    return size


def _timeout_ms(channel: channel_pb2.Channel) -> int:
    """Return the time for calls whose callers name none."""
    return round(seconds("channel.timeout", channel.timeout) * 1000) or DEFAULT_TIMEOUT_MS


def _may_call(functions: Iterable[str]) -> tuple[str, ...]:
    """Return the functions that may be called, each once, by name."""
    for function in functions:
        _check_id("channel.may_call", function, FUNCTION_ID)
    return tuple(sorted(set(functions)))


def _instance(channel: channel_pb2.Channel) -> str:
    """Return the instance that calls go to, or nothing."""
    return instance_id("channel.instance", channel.instance) if channel.instance else ""


def named(field: str, name: str, prefix: str, pattern: re.Pattern[str]) -> str:
    """Return the id in a resource name."""
    if not name.startswith(prefix) or not pattern.fullmatch(name[len(prefix) :]):
        raise invalid_argument(field, f'must be "{prefix}{{{prefix[:-2]}}}"')
    return name[len(prefix) :]


def _check_id(field: str, value: str, pattern: re.Pattern[str]) -> None:
    """Refuse an id that does not match."""
    if not pattern.fullmatch(value):
        raise invalid_argument(field, f"must match {pattern.pattern}")
