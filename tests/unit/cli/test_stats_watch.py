# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contracts' names and arguments)
"""``aetherctl stats -w``: rates, a table that fits a terminal, lines and objects elsewhere."""

from __future__ import annotations

import io
import json
import os
from typing import TYPE_CHECKING, Any

import pytest
from unit.cli.played import Netplane, Registry, Snapshotter, function

from aetherless.netplane.v1 import netplane_service_pb2 as netplane_pb2
from aetherless.netplane.v1 import route_pb2
from aetherless_cli.live_table import make_view, short_size, table_lines
from aetherless_cli.main import run
from aetherless_cli.measure import RATES, Rates
from aetherless_cli.stats_watch import COLUMNS
from aetherless_common import status
from aetherless_common.errors import Unavailable

if TYPE_CHECKING:
    from pathlib import Path

    from unit.cli.conftest import Play


class Counting(Netplane):
    """Counts ten requests more each time it is asked; does not answer when it is told so."""

    def __init__(self) -> None:
        self.asked = 0
        self.away: set[int] = set()

    def GetRouteStats(self, request: Any, context: Any) -> Any:
        """Return counters."""
        self.asked += 1
        if self.asked in self.away:
            error = Unavailable("PEER_UNREACHABLE", "away", {"service": "netplane"})
            status.abort(context, error, "netplane.aetherless")
        stats = route_pb2.RouteStats(requests=10 * self.asked, sent_bytes=2048 * self.asked)
        return netplane_pb2.GetRouteStatsResponse(stats=stats)


@pytest.fixture
def netplane(play: Play) -> Counting:
    """Play a registry of one function, a snapshotter and a netplane that counts."""
    play("registry", Registry(function("a")).register)  # type: ignore[abstract] # plays a part
    play("snapshotter", Snapshotter(os.getpid()).register)  # type: ignore[abstract] # plays a part
    made = Counting()  # type: ignore[abstract] # plays a part
    play("netplane", made.register)
    return made


def row(name: str = "a", **numbers: Any) -> dict[str, Any]:
    """Return the numbers of a function, zero unless given."""
    zeros: dict[str, Any] = {key: 0 for _, key in COLUMNS}
    return {**zeros, **dict.fromkeys(RATES, 0), "id": name, **numbers}


def test_rates_are_differences_over_time() -> None:
    """There is none at first, and none for a counter that began anew."""
    rates = Rates()
    told = []
    for at, requests in ((0.0, 10), (2.0, 30), (3.0, 5), (4.0, 6)):
        rows = [row(requests=requests)]
        rates.add_to(rows, at)
        told.append(rows[0]["requests_per_s"])
    assert told == [None, 10.0, None, 1.0]


def test_a_function_that_comes_and_goes_has_no_rate_at_first() -> None:
    """Others keep theirs; what is not known counts nothing."""
    rates = Rates()
    rates.add_to([row("a", requests=1)], 0.0)
    rows = [row("a", requests=2), row("b", requests=9), row("c", requests=None)]
    rates.add_to(rows, 1.0)
    assert [each["requests_per_s"] for each in rows] == [1.0, None, None]


@pytest.mark.parametrize(
    ("count", "text"),
    [
        (0, "0B"),
        (1023, "1023B"),
        (1024, "1.0K"),
        (150 * 1024, "150K"),
        (9.5 * 1024**2, "9.5M"),
        (3 * 1024**3, "3.0G"),
        (2000 * 1024**4, "2000T"),
    ],
)
def test_sizes_are_short(count: float, text: str) -> None:
    """In at most five characters."""
    assert short_size(count) == text
    assert len(text) <= 5


@pytest.mark.parametrize("columns", [60, 80, 120])
def test_a_table_fits_its_terminal(columns: int) -> None:
    """Long ids are cut, and what does not fit below is counted."""
    rows = [row("x" * 64, requests_per_s=1234.56, unique_memory_bytes=1 << 31) for _ in range(30)]
    lines = table_lines(rows, "netplane does not answer", columns, 24, COLUMNS)
    assert all(len(line) < columns for line in lines)
    assert len(lines) < 24
    assert lines[-2:] == ["and 10 more", "netplane does not answer"]
    assert ("\N{HORIZONTAL ELLIPSIS}" in lines[1]) is True


def test_at_80_columns_every_number_is_there() -> None:
    """Also large ones."""
    busy = row(
        "a-rather-long-name-of-a-function",
        requests_per_s=12345.6,
        connections_per_s=12345.6,
        wakes=100000,
        restore_p50_ms=123.4,
        restore_p99_ms=1234.5,
        unique_memory_bytes=1023 << 20,
        received_bytes_per_s=1023,
        sent_bytes_per_s=900 << 20,
    )
    titles, shown = table_lines([busy], "", 80, 24, COLUMNS)
    assert titles.split() == " ".join(title for title, _ in COLUMNS).split()
    assert shown.split()[1:] == [
        "12346",
        "12346",
        "100000",
        "0",
        "123",
        "1234",
        "1023M",
        "1023B",
        "900M",
    ]


class Screen(io.StringIO):
    """A terminal, as far as printing goes."""

    def isatty(self) -> bool:
        """Say so."""
        return True


def test_a_terminal_is_drawn_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """The second table goes up as many lines as the first had, and clears what is below."""
    screen = Screen()
    view = make_view("table", COLUMNS, "functions", screen)
    view.show([row("a"), row("b")], "")
    assert screen.getvalue().count("\n") == 3
    assert "\x1b[3F" not in screen.getvalue()
    view.show([row("a")], "")
    assert "\x1b[3F" in screen.getvalue()
    assert screen.getvalue().endswith("\x1b[J")


def test_elsewhere_lines_are_appended(
    netplane: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    """With one line of titles, and rates from the second on; no escapes."""
    assert run(["stats", "-w", "-n", "3", "--interval", "0.1"]) == 0
    text = capsys.readouterr().out
    titles, *lines = text.splitlines()
    assert titles.split()[:3] == ["TIME", "ID", "REQ/S"]
    assert [line.split()[1] for line in lines if "TIME" not in line] == ["a", "a", "a"]
    assert lines[0].split()[2] == "-"
    assert float(lines[-1].split()[2]) > 0
    assert "\x1b" not in text


def test_programs_get_an_object_a_line(
    netplane: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    """With the time, counters and rates; a service that is away for a while is named."""
    netplane.away = {2, 3, 4, 5}  # a read is tried four times
    assert run(["-o", "json", "stats", "a", "-w", "-n", "3", "--interval", "0.1"]) == 0
    first, second, third = map(json.loads, capsys.readouterr().out.splitlines())
    assert first["functions"][0]["requests"] == 10
    assert first["functions"][0]["requests_per_s"] is None
    assert second["problem"] == "netplane does not answer"
    assert second["functions"] == first["functions"]
    assert third["problem"] == ""
    assert third["functions"][0]["requests_per_s"] > 0
    assert "T" in third["time"]


def test_a_service_that_is_away_at_first_is_an_error(
    netplane: Counting, capsys: pytest.CaptureFixture[str]
) -> None:
    """As without -w."""
    netplane.away = set(range(1, 9))
    assert run(["stats", "-w", "-n", "1"]) == 10
    assert "PEER_UNREACHABLE" in capsys.readouterr().err


@pytest.mark.parametrize("command", [["stats", "-w"], ["pipeline", "top"]])
def test_an_orchestrator_that_was_not_up_was_not_taken_down(
    command: list[str],
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """It is said to be away, as without -w."""
    monkeypatch.setenv("AETHER_RUNTIME_DIR", str(tmp_path / "none"))
    assert run(command) == 10
    assert "PEER_UNREACHABLE" in capsys.readouterr().err


@pytest.mark.parametrize("wrong", [["-n", "3"], ["-w", "--interval", "0"], ["-w", "-n", "0"]])
def test_wrong_use(wrong: list[str]) -> None:
    """How often belongs to -w."""
    assert run(["stats", *wrong]) == 2
