# SPDX-License-Identifier: Apache-2.0
"""A host that lacks something hears of all of it at once, from ``up`` and ``doctor`` alike."""

from __future__ import annotations

import json
import os
from typing import TYPE_CHECKING

import pytest

from aetherless_cli import preflight
from aetherless_cli.evidence import evidence_of
from aetherless_cli.main import run

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_common.settings import Settings


@pytest.fixture
def bare(tmp_path: Path, settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Pretend an old kernel without BTF and a prefix in which nothing was built."""
    prefix = tmp_path / "prefix"
    prefix.mkdir()
    monkeypatch.setenv("AETHER_PREFIX", str(prefix))
    monkeypatch.setattr(preflight, "BTF", tmp_path / "btf")
    monkeypatch.setattr(preflight, "OLDEST_KERNEL", (99, 0))
    return prefix


WANTED = {
    "kernel": "KERNEL_FEATURE_MISSING",
    "btf": "KERNEL_FEATURE_MISSING",
    "criu": "CRIU_NOT_FOUND",
    "init": "NOT_SET_UP",
    "bpf-objects": "NOT_SET_UP",
}


def test_doctor_names_everything(bare: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Each with reason and remedy; the status is that of FAILED_PRECONDITION."""
    assert run(["doctor", "-o", "json"]) == 6
    printed = capsys.readouterr()
    checks = {each["name"]: each for each in json.loads(printed.out)["checks"]}
    assert {name: checks[name]["reason"] for name in WANTED} == WANTED
    assert all(check["ok"] or check["remedy"] for check in checks.values())
    assert json.loads(printed.err)["error"]["reason"] == "HOST_NOT_READY"


def test_up_says_the_same(
    bare: Path, settings: Settings, repository: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One line per missing thing; nothing was started."""
    assert run(["doctor"]) == 6
    doctor = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert run(["-c", str(repository / "examples" / "hello.yaml"), "up"]) == 6
    up = [line for line in capsys.readouterr().out.splitlines() if line.startswith("missing")]
    assert up == doctor
    assert len(up) >= len(WANTED)
    assert not settings.pid_path("supervisor").exists()


def test_the_kernel_tells_of_a_process() -> None:
    """And says nothing of one that is not there."""
    found = evidence_of(os.getpid())
    assert found is not None
    assert (found.parent_pid, found.sandbox_pid) == (os.getppid(), os.getpid())
    assert "python" in found.command
    assert evidence_of(0) is None
    assert evidence_of(-1) is None
    assert evidence_of(1 << 22) is None
