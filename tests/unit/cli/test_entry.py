# SPDX-License-Identifier: Apache-2.0
"""Interrupts while the command line is imported, runs and ends."""

from __future__ import annotations

import subprocess
import sys

import pytest

# Plays the command line, and interrupts itself where it is told to.
PROGRAM = """
import _signal, atexit, sys, types
from aetherless_cli import entry

where = sys.argv[1]

def at(place):
    if where == place:
        _signal.raise_signal(_signal.SIGINT)

class Finder:
    def find_spec(self, name, *_):
        if name == "aetherless_cli.main":
            at("import")

def run():
    at("run")
    print("ran")
    sys.stdout.flush()

atexit.register(at, "end")
if where == "ignored":
    _signal.signal(_signal.SIGINT, _signal.SIG_IGN)
    where = "run"
else:
    sys.meta_path.insert(0, Finder())
if where != "import":
    program = types.ModuleType("aetherless_cli.main")
    program.main = run
    sys.modules["aetherless_cli.main"] = program
entry.main()
"""


@pytest.mark.parametrize(
    ("where", "status", "said"),
    [("import", 130, ""), ("run", 130, ""), ("end", 130, "ran\n"), ("ignored", 0, "ran\n")],
)
def test_an_interrupt_is_quiet(where: str, status: int, said: str) -> None:
    """It has its status and no traceback; who starts the program may have it ignored."""
    command = [sys.executable, "-c", PROGRAM, where]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stdout, done.stderr) == (status, said, "")


# Has a command fail in the way of code that takes an interrupt for something else.
SPOILED = """
import importlib, _signal, sys
from aetherless_cli import entry, main

def spoil(_):
    try:
        _signal.raise_signal(_signal.SIGINT)
    finally:
        raise TypeError("expected something else")

importlib.import_module = spoil
sys.argv[1:] = ["list"]
entry.main()
"""


def test_what_becomes_of_an_interrupt_is_no_error() -> None:
    """Code in C made another exception of it."""
    command = [sys.executable, "-c", SPOILED]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
    assert (done.returncode, done.stderr) == (130, "")
