# SPDX-License-Identifier: Apache-2.0
"""Every rule about a declaration, at both sides of its limit."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
from google.protobuf.duration_pb2 import Duration

from aetherless.registry.v1 import function_pb2
from aetherless_registry.validation import violations

if TYPE_CHECKING:
    from collections.abc import Callable

    Spec = Callable[..., function_pb2.FunctionSpec]


def ms(value: int) -> Duration:
    """Return milliseconds as a duration."""
    made = Duration()
    made.FromMilliseconds(value)
    return made


GOOD = [
    {"function_id": "A" * 64},
    {"function_id": "a_-9"},
    {"memory_limit_mb": 1},
    {"memory_limit_mb": 16384},
    {"trigger_port": 1},
    {"trigger_port": 65535},
    {"timeout": ms(1)},
    {"timeout": ms(900_000)},
    {"restore_timeout": ms(100_000)},
    {"idle_after": ms(0)},
    {"root_path": ""},
    {"root_path": "/srv"},
    {"mounts": ["/data", "/more"]},
    {"capabilities": function_pb2.CAPABILITY_SET_CONTAINER},
    {"environment": {"KEY": "a=b"}},
    {"warmup_path": ""},
    {"warmup_path": "/health?x=1"},
    {"warmup_kind": 3},
    {"ipc": True},
]
BAD = [
    ("function_id", ""),
    ("function_id", "A" * 65),
    ("function_id", "a b"),
    ("function_id", "a\n"),
    ("function_id", "ä"),
    ("handler_path", ""),
    ("handler_path", "hello.py"),
    ("handler_path", "/a\0b"),
    ("root_path", "srv"),
    ("memory_limit_mb", 0),
    ("memory_limit_mb", 16385),
    ("trigger_port", 0),
    ("trigger_port", 65536),
    ("trigger_port", -1),
    ("timeout", ms(0)),
    ("timeout", ms(900_001)),
    ("restore_timeout", ms(0)),
    ("restore_timeout", ms(100_001)),
    ("idle_after", ms(-1)),
    ("warmup_path", "health"),
    ("warmup_path", "/a b"),
    ("warmup_kind", 9),
    ("capabilities", 9),
]


def changed(spec: Spec, field: str, value: object) -> function_pb2.FunctionSpec:
    """Return a right declaration with one field set, to nothing too."""
    made = spec()
    made.ClearField(field)  # type: ignore[arg-type]
    if isinstance(value, Duration):
        getattr(made, field).CopyFrom(value)
    elif isinstance(value, dict):
        getattr(made, field).update(value)
    elif isinstance(value, list):
        getattr(made, field).extend(value)
    else:
        setattr(made, field, value)
    return made


@pytest.mark.parametrize("fields", GOOD, ids=str)
def test_right_values_pass(spec: Spec, fields: dict[str, object]) -> None:
    """The limits themselves are right."""
    ((field, value),) = fields.items()
    assert violations([changed(spec, field, value)]) == []


@pytest.mark.parametrize(("field", "value"), BAD, ids=lambda v: repr(v).strip()[:30])
def test_wrong_values_are_found(spec: Spec, field: str, value: object) -> None:
    """Each is the one violation, and names its field."""
    (found,) = violations([changed(spec, field, value)])
    assert found.field == f"functions[0].{field}"
    assert found.problem


@pytest.mark.parametrize("name", ["PORT", "AETHER_SOCKET", "A=B", ""])
def test_variables_that_no_program_can_get(spec: Spec, name: str) -> None:
    """Reserved ones, and those that the kernel can't carry."""
    (found,) = violations([spec(environment={name: "x"})])
    assert found.field.startswith("functions[0].environment[")


def test_mounts_are_named_by_their_place(spec: Spec) -> None:
    """The wrong one of several is named."""
    (found,) = violations([spec(mounts=["/ok", "no"])])
    assert found.field == "functions[0].mounts[1]"


def test_a_function_with_a_channel_needs_no_port(spec: Spec) -> None:
    """Then nothing is asked on one; several functions may have none."""
    kind = function_pb2.WARMUP_KIND_NONE
    specs = [spec(f"f{n}", ipc=True, warmup_kind=kind) for n in range(2)]
    for each in specs:
        each.ClearField("trigger_port")
    assert violations(specs) == []
    specs[1].warmup_kind = function_pb2.WARMUP_KIND_TCP
    (wrong,) = violations(specs)
    assert wrong.field == "functions[1].warmup_kind"


def test_repetitions_are_found(spec: Spec) -> None:
    """The second use of an id or a port is wrong, and says where the first is."""
    first, second = violations([spec(), spec("other", trigger_port=1), spec()])
    assert (first.field, second.field) == (
        "functions[2].function_id",
        "functions[2].trigger_port",
    )
    assert "functions[0]" in first.problem


@pytest.mark.parametrize(
    "environment", [{"A": "x" * (128 << 10)}, {f"A{n}": "" for n in range(1025)}]
)
def test_an_environment_has_limits(spec: Spec, environment: dict[str, str]) -> None:
    """More than that no program can be given."""
    (found,) = violations([spec(environment=environment)])
    assert found.field == "functions[0].environment"
    assert "at most" in found.problem


def test_calls_need_a_channel_and_names(spec: Spec) -> None:
    """Its own, and those of functions; whether these exist is seen by each call."""
    assert violations([spec(ipc=True, may_call=["a_-9", "hello"])]) == []
    (found,) = violations([spec(ipc=True, idle_after=ms(999))])
    assert found.field == "functions[0].idle_after"
    assert violations([spec(ipc=True, idle_after=ms(1000)), spec("b", trigger_port=1)]) == []
    (found,) = violations([spec(may_call=["other"])])
    assert found.field == "functions[0].may_call"
    (found,) = violations([spec(ipc=True, may_call=["other", "a b"])])
    assert found.field == "functions[0].may_call[1]"
    (found,) = violations([spec(ipc=True, may_call=[f"f{n}" for n in range(65)])])
    assert "at most" in found.problem
