# SPDX-License-Identifier: Apache-2.0
"""The command tree: help, exit statuses, errors in every format."""

from __future__ import annotations

import importlib
import json
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import yaml

from aetherless_cli.main import COMMANDS, run

if TYPE_CHECKING:
    from aetherless_common.settings import Settings


def test_the_help_text_is_that_of_each_command() -> None:
    """The list of commands repeats what each module says; both must agree."""
    for name, (_, text) in COMMANDS.items():
        command = importlib.import_module(f"aetherless_cli.commands.{name}").command
        assert command.name == name
        assert command.get_short_help_str(200) == text
        assert "Example" in command.help


def test_help_and_list_import_nothing_heavy() -> None:
    """What makes them fast: --help needs click only, list neither pydantic nor structlog."""
    code = (
        "import sys\nfrom aetherless_cli.main import run\n"
        "assert run(['--help']) == 0\nassert 'grpc' not in sys.modules\n"
        "assert run(['list']) == 10\n"
        "heavy = {'pydantic', 'structlog', 'opentelemetry', 'yaml'} & set(sys.modules)\n"
        "assert not heavy, heavy"
    )
    environment = {"AETHER_RUNTIME_DIR": "/run/aether-none", "AETHER_STATE_DIR": "/run/aether-none"}
    done = subprocess.run(
        [sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("program", ["aether", "aetherctl"])
def test_both_names_are_installed(program: str) -> None:
    """The long name and the short one are the same program."""
    path = Path(sys.executable).with_name(program)
    done = subprocess.run([path, "--version"], capture_output=True, text=True, check=True)
    assert done.stdout.startswith("aetherctl 0.")


def test_wrong_use_has_a_status_of_its_own(capsys: pytest.CaptureFixture[str]) -> None:
    """A misspelt command names the right one."""
    assert run(["lst"]) == 2
    assert "Did you mean 'list'?" in capsys.readouterr().err
    assert run(["describe"]) == 2
    assert run(["-o", "xml", "list"]) == 2
    assert run(["logs", "a", "-n", "-9"]) == 2
    assert run(["stats", "--interval", "2"]) == 2
    assert "--interval is for -w" in capsys.readouterr().err


def test_an_error_is_printed_with_reason_message_and_remedy(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """For people on standard error; nothing on standard output."""
    assert run(["list"]) == 10
    printed = capsys.readouterr()
    assert printed.out == ""
    first, second = printed.err.splitlines()
    assert first.startswith("error: PEER_UNREACHABLE: the registry service is unreachable")
    assert second.startswith("remedy: ")


@pytest.mark.parametrize("arguments", [["-o", "json", "list"], ["list", "-o", "json"]])
def test_an_error_as_json(
    settings: Settings, capsys: pytest.CaptureFixture[str], arguments: list[str]
) -> None:
    """Programs get every field; -o may stand before or behind the command."""
    assert run(arguments) == 10
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["reason"] == "PEER_UNREACHABLE"
    assert error["code"] == "UNAVAILABLE"
    assert error["metadata"] == {"service": "registry"}
    assert error["exit_status"] == 10
    assert error["remedy"]


def test_configuration_errors_as_json_have_places(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """File, line and column are fields."""
    file = tmp_path / "c.yaml"
    file.write_text("functions:\n  - {id: a, trigger_port: 0, handler_path: none.py}\n")
    assert run(["-o", "json", "validate", str(file)]) == 3
    error = json.loads(capsys.readouterr().err)["error"]
    assert error["reason"] == "CONFIG_INVALID"
    places = [(v["line"], v["column"], v["reason"]) for v in error["violations"]]
    assert places == [(2, 27, "CONFIG_INVALID"), (2, 44, "HANDLER_NOT_FOUND")]


def test_a_missing_file_is_not_found(capsys: pytest.CaptureFixture[str]) -> None:
    """CONFIG_NOT_FOUND is of class NOT_FOUND."""
    assert run(["-c", "/nonexistent/a.yaml", "validate"]) == 4
    assert "CONFIG_NOT_FOUND" in capsys.readouterr().err


def test_validate_prints_what_will_run(
    repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The examples are valid; paths are absolute."""
    for name in ("hello", "two"):
        assert run(["-o", "yaml", "validate", str(repository / "examples" / f"{name}.yaml")]) == 0
        shown = yaml.safe_load(capsys.readouterr().out)
        assert shown["functions"][0]["handler_path"] == str(repository / "examples" / "hello.py")


def test_a_fault_of_ours_is_internal(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """An unexpected exception is typed too; -v shows where it came from."""
    monkeypatch.setattr(importlib, "import_module", lambda _: 1 / 0)
    assert run(["list"]) == 1
    assert capsys.readouterr().err.startswith("error: INTERNAL: ZeroDivisionError")
    assert run(["-v", "list"]) == 1
    assert "Traceback" in capsys.readouterr().err


def test_a_reader_that_goes_away_is_no_error(repository: Path) -> None:
    """``aetherctl ... | head -0`` prints no traceback."""
    command = f"{sys.executable} -m aetherless_cli.main --help | true"
    done = subprocess.run(command, shell=True, capture_output=True, text=True, check=True)  # noqa: S602 (a pipe is the point)
    assert done.stderr == ""


@pytest.mark.parametrize("name", ["a b", "../x", "x" * 65, "ä"])
def test_ids_are_checked_before_anything_is_asked(
    name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """Text that can't be an id is an invalid argument."""
    assert run(["describe", name]) == 3
    assert "INVALID_ARGUMENT" in capsys.readouterr().err
