# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""``aetherctl events``: what is shown of what the registry kept, and of what comes."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import time
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.played import Registry, function

from aetherless.registry.v1 import event_pb2
from aetherless.registry.v1 import registry_service_pb2 as messages
from aetherless_cli import event_log
from aetherless_cli.client import mesh
from aetherless_cli.event_view import EventView
from aetherless_cli.main import run
from aetherless_common import status
from aetherless_common.errors import Aborted, NotFound, OutOfRange, ResourceExhausted, Unavailable

if TYPE_CHECKING:
    from collections.abc import Iterator

    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings

WARNING = event_pb2.EVENT_SEVERITY_WARNING
NORMAL = event_pb2.EVENT_SEVERITY_NORMAL


def event(number: int, age_s: int = 0, **fields: Any) -> event_pb2.Event:
    """Return an event of that age."""
    made = event_pb2.Event(
        sequence=number,
        function="functions/a",
        severity=NORMAL,
        reason="WOKEN",
        message=f"it happened {number}",
        metadata={"wake": str(number)},
    )
    made.MergeFrom(event_pb2.Event(**fields))
    made.time.FromNanoseconds(time.time_ns() - age_s * 10**9)
    return made


class EventRegistry(Registry):
    """Keeps events in pages of two, and answers watches by a script."""

    def __init__(self, *events: event_pb2.Event) -> None:
        super().__init__(function("a"))
        self.events = list(events)
        self.lists: list[messages.ListEventsRequest] = []
        self.starts: list[int] = []
        self.watches: list[Any] = []

    def ListEvents(self, request: Any, context: Any) -> Any:
        """Hand out two events per page, the newest first."""
        self.lists.append(messages.ListEventsRequest.FromString(request.SerializeToString()))
        at = int(request.page_token or "0")
        kept = [each for each in self.events[::-1] if each.severity >= request.min_severity]
        token = str(at + 2) if at + 2 < len(kept) else ""
        return messages.ListEventsResponse(
            events=kept[at : at + 2],
            next_page_token=token,
            last_sequence=max((each.sequence for each in self.events), default=0),
        )

    def WatchEvents(self, request: Any, context: Any) -> Iterator[Any]:
        """Tell the next part of the script; an error at its end."""
        self.starts.append(request.start_sequence)
        told, error = self.watches.pop(0)
        for each in told:
            yield messages.WatchEventsResponse(events=[each], sequence=each.sequence)
        if error is not None:
            status.abort(context, error, "registry.aetherless")


@pytest.fixture
def registry(play: Play) -> EventRegistry:
    """Play a registry with five events."""
    made = EventRegistry(  # type: ignore[abstract] # plays a part
        event(1, 7200),
        event(2, 600, severity=WARNING, reason="RESTORE_FAILED"),
        event(3, 60),
        event(4, 30),
        event(5),
    )
    play("registry", made.register)
    return made


def shown(capsys: pytest.CaptureFixture[str]) -> list[int]:
    """Return the numbers of the events in a table."""
    return [int(number) for number in re.findall(r"it happened (\d+)", capsys.readouterr().out)]


def test_a_table_of_the_newest(registry: EventRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """The newest stand last; pages are gone through as far as needed."""
    assert run(["events", "-n", "3"]) == 0
    assert shown(capsys) == [3, 4, 5]
    assert len(registry.lists) == 2
    assert run(["events"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split() == ["TIME", "SEVERITY", "FUNCTION", "REASON", "MESSAGE"]
    assert len(rows) == 5
    assert rows[1].split()[-6:] == ["warning", "a", "RESTORE_FAILED", "it", "happened", "2"]


def test_filters(registry: EventRegistry, capsys: pytest.CaptureFixture[str]) -> None:
    """By age, here; by function and severity, there."""
    assert run(["events", "--since", "5m"]) == 0
    assert shown(capsys) == [3, 4, 5]
    assert run(["events", "a", "--warnings", "--since", "1h"]) == 0
    assert shown(capsys) == [2]
    assert registry.lists[-1].function == "functions/a"
    assert registry.lists[-1].min_severity == WARNING


@pytest.mark.parametrize("wrong", [["--since", "5"], ["--since", "5 m"], ["-n", "-2"]])
def test_wrong_use(wrong: list[str]) -> None:
    """An age has a unit; a number is one."""
    assert run(["events", *wrong]) == 2


def test_json_is_one_object_or_one_a_line(
    registry: EventRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """The second while following."""
    assert run(["events", "-o", "json", "-n", "1"]) == 0
    (told,) = json.loads(capsys.readouterr().out)["events"]
    assert (told["sequence"], told["severity"]) == (5, "EVENT_SEVERITY_NORMAL")
    registry.watches = [([event(6)], NotFound("X", "ends the test", domain="registry.aetherless"))]
    assert run(["events", "-f", "-o", "json", "-n", "2"]) == 4
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["sequence"] for line in lines] == [4, 5, 6]
    assert registry.starts == [6]


def test_following_goes_on_where_it_ended(
    registry: EventRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """After the registry was away, and when it was read too slowly; nothing twice, nothing lost."""
    away = Unavailable("PEER_UNREACHABLE", "away", domain="registry.aetherless")
    slow = ResourceExhausted("WATCHER_TOO_SLOW", "slow", domain="registry.aetherless")
    end = NotFound("X", "ends the test", domain="registry.aetherless")
    registry.watches = [
        ([event(6), event(7)], away),
        ([], away),
        ([event(8)], slow),
        ([event(9)], end),
    ]
    assert run(["events", "-f", "-n", "1"]) == 4
    captured = capsys.readouterr()
    assert [int(n) for n in re.findall(r"happened (\d+)", captured.out)] == [5, 6, 7, 8, 9]
    assert registry.starts == [6, 8, 8, 9]
    assert captured.err.count("is away") == captured.err.count("is back") == 1


def test_what_is_not_kept_any_more_is_said(
    registry: EventRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """And the rest is shown."""
    gone = OutOfRange(
        "REVISION_COMPACTED", "gone", {"compactRevision": 20}, domain="registry.aetherless"
    )
    end = NotFound("X", "ends the test", domain="registry.aetherless")
    registry.watches = [([], gone), ([event(21)], end)]
    assert run(["events", "-f", "-n", "1"]) == 4
    assert registry.starts == [6, 21]
    assert "up to number 20" in capsys.readouterr().err


def test_following_ends_with_the_orchestrator(
    registry: EventRegistry, settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """It says that it was taken down, and does not wait for ever."""
    with mesh(settings) as services:
        assert services.registry is not None
        shutil.move(settings.runtime_dir, settings.runtime_dir.with_name("elsewhere"))
        registry.watches = [([], Unavailable("PEER_UNREACHABLE", "away", domain="x"))]
        wanted = event_log.Wanted("", warnings=False)
        with pytest.raises(Aborted) as raised:
            event_log.follow_events(services, wanted, 1, EventView("table", []))
    assert raised.value.reason == "TAKEN_DOWN"


class Screen(io.StringIO):
    """A terminal, as far as printing goes."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def lines(columns: int, monkeypatch: pytest.MonkeyPatch, told: event_pb2.Event) -> list[str]:
    """Return what a terminal of that width gets of an event."""
    monkeypatch.setattr(shutil, "get_terminal_size", lambda: os.terminal_size((columns, 24)))
    monkeypatch.setenv("TERM", "xterm")
    screen = Screen()
    EventView("table", [], screen).show(told)
    return screen.getvalue().splitlines()


@pytest.mark.parametrize("columns", [50, 80, 120])
def test_no_line_is_longer_than_the_terminal(columns: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """A long message goes on below, set in; all of it is there."""
    text = " ".join(f"word{number}" for number in range(30))
    got = lines(columns, monkeypatch, event(1, message=text))
    assert len(got) > 1
    assert all(len(line) <= columns for line in got)
    assert " ".join(" ".join(got).split()).endswith(text)


def test_warnings_are_coloured(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a terminal that shows colours, and only there."""
    warning = event(1, severity=WARNING)
    assert "\x1b[33;1m" in lines(120, monkeypatch, warning)[0]
    assert "\x1b[" not in lines(120, monkeypatch, event(1))[0]
    monkeypatch.setenv("NO_COLOR", "1")
    assert "\x1b[" not in lines(120, monkeypatch, warning)[0]


def test_yaml_is_a_stream_of_documents(
    registry: EventRegistry, capsys: pytest.CaptureFixture[str]
) -> None:
    """While following; else one list."""
    end = NotFound("X", "ends the test", domain="registry.aetherless")
    registry.watches = [([], end)]
    assert run(["events", "-f", "-o", "yaml", "-n", "2"]) == 4
    assert capsys.readouterr().out.count("---\n") == 2
