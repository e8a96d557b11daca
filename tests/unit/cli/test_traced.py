# SPDX-License-Identifier: Apache-2.0
"""A command as the root of a trace, and what it costs when nobody takes the trace."""

from __future__ import annotations

import json
import socket
import time
from typing import TYPE_CHECKING

import pytest

from aetherless_cli.main import run
from aetherless_common import tracing
from framework.collector import ERROR, Collector, collector

if TYPE_CHECKING:
    from collections.abc import Iterator

    from aetherless_common.settings import Settings

UNAVAILABLE, USAGE = 10, 2


@pytest.fixture
def received(monkeypatch: pytest.MonkeyPatch) -> Iterator[Collector]:
    """Receive the spans of commands that run in this process."""
    with collector() as collecting:
        for name, value in collecting.environment.items():
            monkeypatch.setenv(name, value)
        yield collecting


def test_a_failed_command_is_a_failed_span(settings: Settings, received: Collector) -> None:
    """The root has the reason and the exit status, and joins the trace of who called it."""
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("TRACEPARENT", f"00-{'ab' * 16}-{'cd' * 8}-01")
        assert run(["describe", "hello"]) == UNAVAILABLE
    (span,) = received.spans
    assert (span.name, span.status) == ("aetherctl describe", ERROR)
    assert (span.trace, span.parent) == ("ab" * 16, "cd" * 8)
    assert span.attributes["error.type"] == "PEER_UNREACHABLE"
    assert span.attributes["aetherless.error.service"] == "registry"
    assert span.attributes["process.exit.code"] == UNAVAILABLE
    assert span.attributes["aetherless.function"] == "hello"
    assert span.service == "aetherless-cli"
    assert not tracing.recording()


def test_help_and_wrong_use_are_not_traced(
    received: Collector, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was run, so there is nothing to tell."""
    assert run(["deploy", "--help"]) == 0
    assert run(["describe"]) == USAGE
    assert run(["logs", "-n", "0", "hello"]) == USAGE  # this one is found by the command itself
    capsys.readouterr()
    assert [span.name for span in received.spans] == ["aetherctl logs"]


@pytest.mark.parametrize("form", ["table", "json"])
def test_no_collector_warns_once_and_changes_nothing(
    settings: Settings,
    form: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    """Status and output are those of the command; the delay is bounded."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
        monkeypatch.setenv("OTEL_EXPORTER_OTLP_ENDPOINT", f"http://127.0.0.1:{port}")
        begun = time.monotonic()
        assert run(["-o", form, "doctor", "--help"]) == 0
        assert "warning" not in capsys.readouterr().err
        assert run(["-o", form, "list"]) == UNAVAILABLE
        assert time.monotonic() - begun < 10 * tracing.FLUSH_S
    printed = capsys.readouterr().err
    assert printed.count("warning") == 1
    if form == "json":
        warning, end = json.JSONDecoder().raw_decode(printed)
        assert "traces are lost" in warning["warning"]
        assert json.loads(printed[end:])["error"]["reason"] == "PEER_UNREACHABLE"
