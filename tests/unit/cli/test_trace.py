# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""``aetherctl trace``: the newest wake as a waterfall and as data."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.played import Registry, function

from aetherless.registry.v1 import event_pb2, function_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import waterfall
from aetherless_cli.main import run

if TYPE_CHECKING:
    from unit.cli.conftest import Play

NOT_FOUND = 4


class Woken(Registry):
    """Knows one function, its newest wake and its events."""

    def __init__(self) -> None:
        super().__init__(function("a"))
        self.events: list[event_pb2.Event] = []

    def ListEvents(self, request: Any, context: Any) -> Any:
        """Hand them out, the newest first."""
        assert request.newest_first
        return messages.ListEventsResponse(events=self.events)

    def wake(self, first_byte_ms: int = 0, **fields: Any) -> None:
        """Have been woken: asked after 1 ms, restored after 7, open after 8."""
        wake = function_pb2.WakeNotice(
            cause="packet",
            client="127.0.0.1:5",
            held_packets=1,
            instance="a-r1-0",
            sequence=3,
            **fields,
        )
        wake.first_packet_time.FromMilliseconds(1_700_000_000_123)
        wake.request_latency.FromMilliseconds(1)
        wake.restore_duration.FromMilliseconds(6)
        wake.total_duration.FromMilliseconds(8)
        if first_byte_ms:
            wake.first_byte.FromMilliseconds(first_byte_ms)
        self.functions[0].instances[0].newest_wake.CopyFrom(wake)


@pytest.fixture
def registry(play: Play) -> Woken:
    """Play a registry."""
    made = Woken()  # type: ignore[abstract] # plays a part
    play("registry", made.register)
    return made


def test_a_wake_is_a_waterfall(
    registry: Woken, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each part stands where it lies in time; the whole is as wide as is said."""
    monkeypatch.setenv("COLUMNS", str(waterfall.BESIDE + 40))
    registry.wake(first_byte_ms=10)
    assert run(["trace", "a"]) == 0
    head, instance, _, heading, *parts, _, end = capsys.readouterr().out.splitlines()
    assert head.startswith("a: woken by 127.0.0.1:5 at 2023-11-1")
    assert instance == "instance a-r1-0, wake 3, 1 packet held"
    assert heading.split() == ["PART", "FROM", "MS", "TOOK", "MS"]
    assert [part.split()[:3] for part in parts] == [
        ["hold", "0.00", "1.00"],
        ["restore", "1.00", "6.00"],
        ["replay", "7.00", "1.00"],
        ["answer", "8.00", "2.00"],
    ]
    bars = [part[34:] for part in parts]
    assert [len(bar) for bar in bars] == [4, 28, 32, 40]
    assert [len(bar.strip()) for bar in bars] == [4, 24, 4, 8]
    assert end == "first byte after 10.00 ms"


def test_a_wake_as_data(registry: Woken, capsys: pytest.CaptureFixture[str]) -> None:
    """With the contract's own fields, and the trace that its event names."""
    registry.wake(first_byte_ms=10)
    told = {"instance": "a-r1-0", "wake": "3"}
    registry.events = [
        event_pb2.Event(trace_id="other", metadata={**told, "wake": "2"}),
        event_pb2.Event(trace_id="mine", metadata=told),
    ]
    assert run(["-o", "json", "trace", "a"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert (data["function"], data["total_ms"], data["trace_id"]) == ("a", 10.0, "mine")
    assert data["parts"][1] == {"name": "restore", "start_ms": 1.0, "duration_ms": 6.0}
    assert data["wake"]["request_latency"] == "0.001s"
    assert run(["trace", "a"]) == 0
    assert capsys.readouterr().out.endswith("\ntrace mine\n")


def test_a_first_byte_that_only_the_event_knows(
    registry: Woken, capsys: pytest.CaptureFixture[str]
) -> None:
    """The registry was started again since; without it, no answer was seen."""
    registry.wake()
    assert run(["trace", "a"]) == 0
    assert "awake after 8.00 ms; no answer was seen" in capsys.readouterr().out
    told = {"instance": "a-r1-0", "wake": "3", "firstByteMs": "9.5"}
    registry.events = [event_pb2.Event(metadata=told)]
    assert run(["trace", "a"]) == 0
    assert "first byte after 9.50 ms" in capsys.readouterr().out


def test_a_wake_that_failed(registry: Woken, capsys: pytest.CaptureFixture[str]) -> None:
    """The command did what it was asked: it shows why."""
    registry.wake(failure_reason="RESTORE_FAILED", failure_message="a file is gone")
    assert run(["trace", "a"]) == 0
    text = capsys.readouterr().out
    assert "reset" in text
    assert "failed: RESTORE_FAILED: a file is gone" in text


def test_no_wake_yet(registry: Woken, capsys: pytest.CaptureFixture[str]) -> None:
    """A typed error says how to get one."""
    assert run(["trace", "a"]) == NOT_FOUND
    text = capsys.readouterr().err
    assert "WAKE_NOT_FOUND: a was not woken yet" in text
    assert "port 8080" in text


def test_a_plain_terminal_gets_plain_bars(monkeypatch: pytest.MonkeyPatch) -> None:
    """Where blocks can't be shown there are hashes, and a stroke for what is too short."""
    monkeypatch.setattr(waterfall, "_has_blocks", lambda: False)
    monkeypatch.setenv("COLUMNS", "80")
    shown = [waterfall.Part("a", 0.0, 0.001), waterfall.Part("b", 0.001, 10.0)]
    _, short, long = waterfall.lines(shown)
    assert short.endswith("  |")
    assert long.endswith("#" * 42)
