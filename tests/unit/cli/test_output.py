# SPDX-License-Identifier: Apache-2.0
"""Tables, errors, and lines that a terminal rewrites."""

from __future__ import annotations

import io
import json
import sys
import threading
from typing import TYPE_CHECKING, Any

from aetherless_cli import console as consoles
from aetherless_cli.console import Console
from aetherless_cli.output import print_error, print_fields, print_table
from aetherless_cli.reasons import remedy_for
from aetherless_common.errors import FailedPrecondition
from framework.processes import wait_until

if TYPE_CHECKING:
    from collections.abc import Callable

    import pytest


class Terminal(io.StringIO):
    """Text that believes to be shown on a terminal."""

    def isatty(self) -> bool:
        """Say so."""
        return True


class Gone(Terminal):
    """A terminal that was closed."""

    def write(self, _: str) -> int:
        """Fail as the kernel does."""
        raise OSError(5, "Input/output error")


def test_columns_are_aligned_and_numbers_stand_right(capsys: pytest.CaptureFixture[str]) -> None:
    """No colours, no lines, no trailing spaces."""
    print_table(("ID", "PORT", "MS"), [["a", 80, 1.25], ["long-id", 8080, None]])
    assert capsys.readouterr().out == "ID       PORT   MS\na          80  1.2\nlong-id  8080    -\n"


def test_an_empty_table_has_its_heading(capsys: pytest.CaptureFixture[str]) -> None:
    """Nothing to list is not nothing to say."""
    print_table(("ID", "PORT"), [])
    assert capsys.readouterr().out == "ID  PORT\n"


def narrow(monkeypatch: pytest.MonkeyPatch, show: Callable[[], None]) -> list[str]:
    """Return the lines of what is shown on a terminal of 40 columns."""
    terminal = Terminal()
    monkeypatch.setenv("COLUMNS", "40")
    monkeypatch.setattr(sys, "stdout", terminal)
    show()
    return terminal.getvalue().splitlines()


def test_what_is_too_wide_for_a_terminal_goes_on_below(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tables between columns, texts between words; paths stay whole, and so do files."""
    path = "/srv/a-folder-with-a-name/and-one/app.py"
    row = ["hello-api", "RUNNING", 8080, path]
    columns = ("ID", "STATE", "PORT", "HANDLER")
    assert narrow(monkeypatch, lambda: print_table(columns, [row])) == [
        "ID         STATE    PORT",
        "    HANDLER",
        "hello-api  RUNNING  8080",
        f"    {path}",
    ]
    text = f"made of {path} by CRIU on that kernel, and so on"
    assert narrow(monkeypatch, lambda: print_fields({"made": text}, 2)) == [
        "  made  made of",
        f"        {path}",
        "        by CRIU on that kernel, and so",
        "        on",
    ]
    file = io.StringIO()
    monkeypatch.setattr(sys, "stdout", file)
    print_fields({"made": text}, 2)
    assert file.getvalue() == f"  made  {text}\n"


def test_lines_that_stay_are_folded_on_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rest stands to the right of the next line's beginning."""
    monkeypatch.setenv("COLUMNS", "40")
    terminal = Terminal()
    Console("table", terminal).line("a:    images    raised the backlog, closed nothing")
    assert terminal.getvalue() == "a:    images    raised the backlog,\n        closed nothing\n"


def test_an_error_shows_its_log_apart() -> None:
    """The handler's last words are indented under the message."""
    stream = io.StringIO()
    metadata = {"function": "a", "status": "exit 3", "log": "one\ntwo\n"}
    error = FailedPrecondition(
        "HANDLER_EXITED", "a ended", metadata, domain="snapshotter.aetherless"
    )
    print_error(error, "table", stream)
    assert stream.getvalue().splitlines()[:6] == [
        "error: HANDLER_EXITED: a ended",
        "  status: exit 3",
        "  last log lines:",
        "    one",
        "    two",
        f"remedy: {remedy_for('snapshotter.aetherless', 'HANDLER_EXITED')}",
    ]


def test_colour_is_for_terminals_only(monkeypatch: pytest.MonkeyPatch) -> None:
    """And not when NO_COLOR is set."""
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.delenv("NO_COLOR", raising=False)
    error = FailedPrecondition("X", "y")
    terminal = Terminal()
    print_error(error, "table", terminal)
    assert "\x1b[31;1merror" in terminal.getvalue()
    monkeypatch.setenv("NO_COLOR", "1")
    plain = Terminal()
    print_error(error, "table", plain)
    assert "\x1b" not in plain.getvalue()


def test_passing_lines_are_rewritten_on_a_terminal_and_left_out_elsewhere() -> None:
    """A log file gets lines that stay, nothing else."""
    terminal, file = Terminal(), io.StringIO()
    for stream in (terminal, file):
        console = Console("table", stream)
        console.passing("dumping ...")
        console.line("dumped")
    assert terminal.getvalue() == "dumping ...\r\x1b[Kdumped\n"
    assert file.getvalue() == "dumped\n"


def test_what_takes_longer_is_counted_in_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    """A terminal sees that it goes on; the counting ends with the passing line."""
    monkeypatch.setattr(consoles, "TICK", 0.01)
    terminal = Terminal()
    console = Console("table", terminal)
    console.passing("dumping ...")
    wait_until(lambda: "dumping ...  1 s" in terminal.getvalue(), "the first second")
    console.line("dumped")
    wait_until(lambda: "console" not in {each.name for each in threading.enumerate()}, "its end")
    assert terminal.getvalue().endswith("\r\x1b[Kdumped\n")


def test_a_block_that_takes_longer_says_what_it_does() -> None:
    """On a terminal only; what is quick says nothing, and nothing is left of what was said."""
    terminal, file = Terminal(), io.StringIO()
    with Console("table", terminal).busy("reading"):
        pass
    assert terminal.getvalue() == ""
    with Console("table", file).busy("reading", 0):
        pass
    assert file.getvalue() == ""
    with Console("table", terminal).busy("reading", 0):
        wait_until(lambda: "reading" in terminal.getvalue(), "it is told")
    assert terminal.getvalue() == "reading\r\x1b[K"


def test_programs_get_one_json_object_per_line() -> None:
    """With -o json the live output is JSON lines."""
    stream = io.StringIO()
    console = Console("json", stream)
    console.line("dumped", event="progress", step={"a": 1})
    told: dict[str, Any] = json.loads(stream.getvalue())
    assert told == {"event": "progress", "step": {"a": 1}, "text": "dumped"}


def test_a_closed_terminal_stops_only_the_talking() -> None:
    """``down`` after a lost connection must go on."""
    console = Console("table", Gone())
    console.line("one")
    console.passing("two")
    console.line("three")
