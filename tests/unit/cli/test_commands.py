# SPDX-License-Identifier: Apache-2.0
"""What the inspecting commands print of what the services say."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest
from unit.cli.played import Netplane, Registry, Snapshotter, function

from aetherless_cli.main import run

if TYPE_CHECKING:
    from unit.cli.conftest import Play

    from aetherless_common.settings import Settings


@pytest.fixture(autouse=True)
def services(play: Play) -> None:
    """Play a registry of two functions, a snapshotter whose process is this one, a netplane."""
    registry = Registry(function("a"), function("b"))  # type: ignore[abstract] # plays a part
    play("registry", registry.register)
    snapshotter = Snapshotter(os.getpid())  # type: ignore[abstract] # plays a part
    play("snapshotter", snapshotter.register)
    play("netplane", Netplane().register)  # type: ignore[abstract] # plays a part


def test_list_goes_through_all_pages(capsys: pytest.CaptureFixture[str]) -> None:
    """One row per function."""
    assert run(["list"]) == 0
    heading, *rows = capsys.readouterr().out.splitlines()
    assert heading.split()[:4] == ["ID", "STATE", "DEPLOY", "PORT"]
    assert [row.split()[:4] for row in rows] == [
        ["a", "WARM_SNAPSHOT", "DEPLOYED", "8080"],
        ["b", "WARM_SNAPSHOT", "DEPLOYED", "8080"],
    ]
    assert run(["list", "-o", "json"]) == 0
    listed = json.loads(capsys.readouterr().out)["functions"]
    assert [each["spec"]["function_id"] for each in listed] == ["a", "b"]


def test_describe_shows_what_the_kernel_says(capsys: pytest.CaptureFixture[str]) -> None:
    """The process that answers is looked up in /proc, beside what the services say."""
    assert run(["describe", "a"]) == 0
    text = capsys.readouterr().out
    assert "6.70 ms by CRIU" in text
    assert f"child of another process ({os.getppid()})" in text
    assert "CRIU 4.2.1" in text
    assert "median 7.1 ms, longest 9.0 ms; first answer after 12.3 ms; a limit of 15 ms" in text
    assert "9.0 MiB shared until written, 1.0 MiB copied by each restore" in text
    assert "writes 4.0 MiB, shared until then: answered after 13.5 ms with all" in text
    assert "pages shared, 13.3 ms with these copied" in text
    assert run(["-o", "json", "describe", "a"]) == 0
    (instance,) = json.loads(capsys.readouterr().out)["instances"]
    assert instance["kernel"]["pid"] == os.getpid()
    assert instance["kernel"]["parent_pid"] == os.getppid()
    assert instance["kernel"]["started_at"].endswith("+00:00")


def test_stats_are_the_kernels_and_the_snapshotters(capsys: pytest.CaptureFixture[str]) -> None:
    """What is not known is null, not 0."""
    assert run(["stats", "a", "-o", "json"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["functions"]
    assert row["requests"] == 1 << 33
    assert (row["wakes"], row["failed_wakes"]) == (7, 1)
    assert (row["restore_p50_ms"], row["restore_p99_ms"]) == (6.7, 9.9)
    assert (row["first_byte_p50_ms"], row["first_byte_p99_ms"]) == (7.4, None)
    assert run(["stats"]) == 0
    table = capsys.readouterr().out
    assert "3.0 MiB" in table
    assert "5.0 MiB" in table


def test_logs_are_passed_on_byte_by_byte(capfdbinary: pytest.CaptureFixture[bytes]) -> None:
    """A function may print what is no text."""
    assert run(["logs", "a", "-n", "-1"]) == 0
    assert capfdbinary.readouterr().out == b"one\n\xff-1\n"


def test_a_service_that_is_not_there_is_named(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    """The netplane's socket is gone: stats can't be had, and says so."""
    settings.socket_path("netplane").unlink()
    assert run(["stats", "a"]) == 10
    assert "PEER_UNREACHABLE: the netplane service" in capsys.readouterr().err
