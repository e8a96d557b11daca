# SPDX-License-Identifier: Apache-2.0
# ruff: noqa: N802, ARG002 (the contract's name and arguments)
"""Completion in real shells: keys are pressed, or the shell is asked what it would offer."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pytest

from aetherless.registry.v1 import registry_service_pb2
from aetherless_cli import completion
from framework.terminal import Terminal

from .played import Registry, function

if TYPE_CHECKING:
    from aetherless_common.settings import Settings

    from .conftest import Play

BASH = ["bash", "--norc", "--noprofile", "-i"]
ZSH = ["zsh", "-f", "-i"]
TAB = b"\t"


class Slow(Registry):
    """Answers after a while."""

    delay = 0.0

    def ListFunctions(self, request: Any, context: Any) -> Any:
        """Name the functions, all in one page."""
        time.sleep(self.delay)
        return registry_service_pb2.ListFunctionsResponse(functions=self.functions)


@pytest.fixture
def registry(play: Play) -> Slow:
    """Return a registry of three functions."""
    names = ("orders", "orders-archive", "users")
    played = Slow(*(function(name) for name in names))  # type: ignore[abstract] # plays a part
    play("registry", played.register)
    return played


def environment() -> dict[str, str]:
    """Return an environment in which the program is found."""
    programs = str(Path(sys.executable).parent)
    return {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "PS1": "> "}


def shell(name: str) -> str:
    """Return a shell's path, or skip where only the tests' set-up would bring it."""
    return shutil.which(name) or pytest.skip(f"{name} is not installed: make test installs it")


@pytest.mark.parametrize("program", ["aetherctl", "aether"])
@pytest.mark.parametrize("command", [BASH, ZSH], ids=["bash", "zsh"])
def test_a_key_completes(registry: Slow, command: list[str], program: str) -> None:
    """A command's name, then a function's id, under both names of the program."""
    shell(command[0])
    prepare = b"autoload -Uz compinit; compinit -u -D; " if command is ZSH else b""
    with Terminal(command, environment()) as terminal:
        source = f"source <(aetherctl completion {command[0]}); echo is rea''dy\n"
        terminal.type(prepare + source.encode())
        terminal.expect("is ready")
        terminal.type(f"{program} descr".encode() + TAB)
        terminal.expect(rf"{program} describe\s")
        terminal.type(b"us" + TAB)
        terminal.expect(r"describe[\s\x08]+users")  # zsh steps back before it prints
        terminal.type(b"\x15exit\n")
        terminal.wait()


def offered(line: str) -> list[str]:
    """Return what fish offers at the end of a line."""
    fish = shell("fish")
    script = f"aetherctl completion fish | source; complete -C '{line}'"
    command = [fish, "--no-config", "-c", script]
    done = subprocess.run(
        command, env=environment(), capture_output=True, text=True, timeout=60, check=True
    )
    return [each.split("\t")[0] for each in done.stdout.splitlines()]


@pytest.mark.parametrize("program", ["aetherctl", "aether"])
def test_fish_offers(registry: Slow, program: str) -> None:
    """Commands, options, values and ids."""
    assert offered(f"{program} descr") == ["describe"]
    assert offered(f"{program} evict or") == ["orders", "orders-archive"]
    assert "--follow" in offered(f"{program} logs --f")
    assert offered(f"{program} -o j") == ["json"]


def test_without_a_registry_there_are_no_ids(settings: Settings) -> None:
    """A shell is not told of errors."""
    assert offered("aetherctl describe or") == []


def test_a_slow_registry_is_not_waited_for(registry: Slow, settings: Settings) -> None:
    """A key that does nothing for seconds is worse than no completion."""
    registry.delay = completion.PATIENCE + 0.5
    assert completion.function_ids("or") == []


def test_a_misspelt_command_offers_nothing(settings: Settings) -> None:
    """The remark about the right one is for who runs it."""
    assert offered("aetherctl descripe or") == []
