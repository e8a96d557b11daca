# SPDX-License-Identifier: Apache-2.0
"""Log lines, from a process of their own (the configuration is the process's)."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import pytest

CODE = """
import threading, structlog
from aetherless_common import logs
log = structlog.get_logger()
logs.configure("ipc")
log.debug("quiet")
log.info("loud", size=3)
try:
    1 / 0
except ZeroDivisionError:
    threading.Thread(target=log.exception, args=("failed",)).start()
"""


def lines(level: str) -> list[dict[str, object]]:
    """Run the code with a level; return what it logged."""
    done = subprocess.run(
        [sys.executable, "-c", CODE],
        env=os.environ | {"AETHER_LOG_LEVEL": level},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == ""
    return [json.loads(line) for line in done.stderr.splitlines()]


@pytest.mark.parametrize(
    ("level", "events"),
    [
        ("debug", ["quiet", "loud", "failed"]),
        ("INFO", ["loud", "failed"]),
        ("", ["loud", "failed"]),
        ("error", ["failed"]),
    ],
)
def test_level(level: str, events: list[str]) -> None:
    """Lines below the level are left out; each line names the service, from any thread."""
    printed = lines(level)
    assert [line["event"] for line in printed] == events
    assert {line["service"] for line in printed} == {"ipc"}


def test_fields() -> None:
    """Fields stay values; every line is one JSON object with its time and level."""
    loud = lines("info")[0]
    assert loud["size"] == 3
    assert {"timestamp", "level"} <= loud.keys()


def test_unknown_level_is_refused() -> None:
    """A level that does not exist is an error, not a default."""
    command = [sys.executable, "-c", CODE]
    done = subprocess.run(
        command, env=os.environ | {"AETHER_LOG_LEVEL": "shout"}, capture_output=True, check=False
    )
    assert done.returncode != 0
    assert b"unknown log level 'SHOUT'" in done.stderr
