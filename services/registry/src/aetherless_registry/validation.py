# SPDX-License-Identifier: Apache-2.0
"""What a declaration may say. All faults are found at once, each with the field it is in."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from aetherless.registry.v1 import function_pb2
from aetherless_common.errors import Violation

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator

    from google.protobuf.duration_pb2 import Duration

FUNCTION_ID = re.compile(r"[A-Za-z0-9_-]{1,64}")
VARIABLE = re.compile(r"[^=\0]+")
WARMUP_PATH = re.compile(r"(/[!-~]*)?")
RESERVED_VARIABLES = frozenset(
    {"AETHER_CHANNEL", "AETHER_SOCKET", "AETHER_TRIGGER_PORT", "AETHER_FUNCTION_ID", "PORT"}
)
MAX_MEMORY_MB = 16384
MAX_PORT = 65535
MAX_TIMEOUT_MS = 900_000
MAX_RESTORE_TIMEOUT_MS = 100_000
MAX_VARIABLES = 1024
MAX_CALLEES = 64
LEAST_IDLE_MS = 1000
# The kinds of warm-up of a function without a port.
UNASKED = frozenset({function_pb2.WARMUP_KIND_UNSPECIFIED, function_pb2.WARMUP_KIND_NONE})
MAX_ENVIRONMENT = 128 << 10  # bytes: the kernel takes no longer string
NS_PER_MS = 1_000_000


def violations(specs: Iterable[function_pb2.FunctionSpec]) -> list[Violation]:
    """Return all that is wrong with the declarations, in their order."""
    found: list[Violation] = []
    ids: dict[str, int] = {}
    ports: dict[int, int] = {}
    for index, spec in enumerate(specs):
        place = f"functions[{index}]"
        found += violations_of(spec, place)
        first = ids.setdefault(spec.function_id, index)
        if first != index:
            found.append(_repeated(place, "function_id", spec.function_id, first))
        first = ports.setdefault(spec.trigger_port, index)
        if spec.trigger_port and first != index:
            found.append(_repeated(place, "trigger_port", spec.trigger_port, first))
    return found


def violations_of(spec: function_pb2.FunctionSpec, place: str) -> list[Violation]:
    """Return all that is wrong with one declaration by itself; ``place`` names it."""
    return [Violation(f"{place}.{field}", problem) for field, problem in _problems(spec)]


def _repeated(place: str, field: str, value: object, first: int) -> Violation:
    """Return the fault of a value that must be unique and is not."""
    return Violation(f"{place}.{field}", f"{value!r} is taken by functions[{first}]")


def _problems(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with one declaration by itself."""
    if not FUNCTION_ID.fullmatch(spec.function_id):
        yield "function_id", "must be 1 to 64 characters of A-Z a-z 0-9 _ -"
    if not _is_path(spec.handler_path):
        yield "handler_path", "must be an absolute path"
    if spec.root_path and not _is_path(spec.root_path):
        yield "root_path", "must be an absolute path, or empty"
    for number, mount in enumerate(spec.mounts):
        if not _is_path(mount):
            yield f"mounts[{number}]", "must be an absolute path"
    if not 1 <= spec.memory_limit_mb <= MAX_MEMORY_MB:
        yield "memory_limit_mb", f"must be 1 to {MAX_MEMORY_MB}, is {spec.memory_limit_mb}"
    if spec.capabilities not in function_pb2.CapabilitySet.values():
        yield "capabilities", f"must be NONE or CONTAINER, is {spec.capabilities}"
    yield from _port(spec)
    yield from _times(spec)
    yield from _environment(spec)
    yield from _warmup(spec)
    yield from _calls(spec)


def _port(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with where it listens; a function with a channel need not listen."""
    if spec.trigger_port or not spec.ipc:
        if not 1 <= spec.trigger_port <= MAX_PORT:
            problem = f"must be 1 to {MAX_PORT}, or 0 with ipc, is {spec.trigger_port}"
            yield "trigger_port", problem
    elif spec.warmup_kind not in UNASKED:
        yield "warmup_kind", "must be NONE without a trigger_port: there is nothing to ask"


def _times(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield the times that are out of range."""
    if not 1 <= _ms(spec.timeout) <= MAX_TIMEOUT_MS:
        yield "timeout", f"must be 1 to {MAX_TIMEOUT_MS} ms"
    if not 1 <= _ms(spec.restore_timeout) <= MAX_RESTORE_TIMEOUT_MS:
        yield "restore_timeout", f"must be 1 to {MAX_RESTORE_TIMEOUT_MS} ms"
    if _ms(spec.idle_after) < 0:
        yield "idle_after", "must not be negative"


def _environment(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield the variables that no program can be given."""
    for name, value in sorted(spec.environment.items()):
        if name in RESERVED_VARIABLES:
            yield f"environment[{name}]", "is set by the sandbox"
        elif not VARIABLE.fullmatch(name) or "\0" in value:
            yield f"environment[{name!r}]", "is not a variable that a program can be given"
    size = sum(len(f"{name}={value}".encode()) + 1 for name, value in spec.environment.items())
    if len(spec.environment) > MAX_VARIABLES or size > MAX_ENVIRONMENT:
        yield "environment", f"must hold at most {MAX_VARIABLES} variables, {MAX_ENVIRONMENT} bytes"


def _warmup(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with the warm-up."""
    if spec.warmup_kind not in function_pb2.WarmupKind.values():
        yield "warmup_kind", f"must be HTTP, TCP or NONE, is {spec.warmup_kind}"
    if not WARMUP_PATH.fullmatch(spec.warmup_path):
        yield "warmup_path", "must begin with a slash and hold no spaces"


def _calls(spec: function_pb2.FunctionSpec) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with calls through its channel."""
    if spec.ipc and 0 < _ms(spec.idle_after) < LEAST_IDLE_MS:
        # A call is told of a few times a second; an eviction must not come in between.
        yield "idle_after", f"must be 0 or at least {LEAST_IDLE_MS} ms with ipc"
    if spec.may_call and not spec.ipc:
        yield "may_call", "needs ipc: calls go through its channel"
    if len(spec.may_call) > MAX_CALLEES:
        yield "may_call", f"must name at most {MAX_CALLEES} functions"
    for number, callee in enumerate(spec.may_call):
        if not FUNCTION_ID.fullmatch(callee):
            yield f"may_call[{number}]", f"must be the id of a function, is {callee!r}"


def _is_path(path: str) -> bool:
    """Tell whether a path is absolute and can be given to the kernel."""
    return path.startswith("/") and "\0" not in path


def _ms(duration: Duration) -> float:
    """Return a duration in milliseconds."""
    return duration.ToNanoseconds() / NS_PER_MS
