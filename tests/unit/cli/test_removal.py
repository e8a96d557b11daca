# SPDX-License-Identifier: Apache-2.0
"""What ``down`` removes, and what it must leave alone."""

from __future__ import annotations

import io
import os
from typing import TYPE_CHECKING

import pytest

from aetherless_cli import removal
from aetherless_cli.console import Console
from aetherless_cli.preflight import check_host
from aetherless_cli.removal import Removal
from aetherless_common.errors import AetherlessError
from aetherless_common.proc import ProcessRef

if TYPE_CHECKING:
    from aetherless_common.settings import Settings


@pytest.fixture
def quiet(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Removal:
    """Return a removal without the services' own clean-ups, which other tests run."""
    monkeypatch.setattr(removal, "CLEANUP_ORDER", ())
    return Removal(settings, Console("table", io.StringIO()))


def test_snapshots_of_others_stay(quiet: Removal, settings: Settings) -> None:
    """Two orchestrators may share the folder of snapshots."""
    for name in (settings.orchestrator_id, "abcdef"):
        (settings.snapshot_dir / name / "x-r1").mkdir(parents=True)
    quiet.run()
    assert [entry.name for entry in settings.snapshot_dir.iterdir()] == ["abcdef"]


def test_snapshots_can_be_kept(quiet: Removal, settings: Settings) -> None:
    """With --keep-snapshots."""
    settings.snapshot_path("x-r1").mkdir(parents=True)
    quiet.run(keep_snapshots=True)
    assert settings.snapshot_path("x-r1").is_dir()


def test_files_of_others_in_the_runtime_folder_are_told_and_stay(
    quiet: Removal, settings: Settings
) -> None:
    """A folder that somebody chose by mistake is not emptied."""
    (settings.runtime_dir / "thesis.tex").touch()
    with pytest.raises(AetherlessError) as caught:
        quiet.run()
    assert caught.value.reason == "CLEANUP_FAILED"
    assert "thesis.tex" in caught.value.message
    assert (settings.runtime_dir / "thesis.tex").exists()
    assert not settings.settings_path.exists()


@pytest.mark.parametrize("pid", [-1, 0, 1])
def test_no_signal_goes_to_a_pid_of_one_or_less(
    quiet: Removal, settings: Settings, pid: int
) -> None:
    """A damaged pid file must not end the machine."""
    ProcessRef(pid, 0).write(settings.pid_path("snapshotter"))
    assert not quiet.run()


def test_a_pid_that_was_given_to_another_is_left_alone(quiet: Removal, settings: Settings) -> None:
    """The start time tells them apart: this test itself has the pid."""
    myself = ProcessRef.of(os.getpid())
    ProcessRef(myself.pid, myself.start_ticks - 1).write(settings.pid_path("snapshotter"))
    assert not quiet.run()


def test_up_refuses_folders_of_others(settings: Settings) -> None:
    """``up`` would close them to all but root."""
    settings.settings_path.unlink()
    (settings.runtime_dir / "thesis.tex").touch()
    found = {check.name: check for check in check_host(settings)}
    assert found["runtime folder"].reason == "FOLDER_IN_USE"
    assert found["state folder"].ok
