# SPDX-License-Identifier: Apache-2.0
"""Settings from the environment and from a file, and what follows from them."""

from __future__ import annotations

import hashlib
import stat
from pathlib import Path

import pytest

from aetherless_common import errors
from aetherless_common.settings import Settings, find_prefix, orchestrator_id, write_atomically


def load(tmp_path: Path, **more: str) -> Settings:
    """Load settings with folders of the test's own."""
    places = {
        "AETHER_RUNTIME_DIR": str(tmp_path / "run"),
        "AETHER_STATE_DIR": str(tmp_path / "lib"),
    }
    return Settings.load(places | more)


def test_defaults() -> None:
    """Without an environment and a file, the documented places and numbers."""
    settings = Settings.load({"AETHER_PREFIX": "/p"})
    if not settings.settings_path.exists():
        assert settings.snapshot_dir == Path("/dev/shm/aetherless")
        assert settings.restore_timeout_ms == 15
    assert settings.runtime_dir == Path("/run/aetherless")
    assert settings.state_dir == Path("/var/lib/aetherless")
    assert settings.prefix == Path("/p")


def test_written_settings_are_loaded(tmp_path: Path) -> None:
    """What one process wrote, another loads, by the runtime folder alone."""
    settings = load(tmp_path).replace(
        restore_timeout_ms=2000, snapshot_dir=tmp_path / "snapshots", warm_pool_size=3
    )
    settings.write()
    assert load(tmp_path) == settings
    assert Settings.load({"AETHER_RUNTIME_DIR": str(tmp_path / "run")}) == settings


def test_environment_wins_over_the_file(tmp_path: Path) -> None:
    """A state folder that is named outright is taken."""
    load(tmp_path).write()
    other = load(tmp_path, AETHER_STATE_DIR=str(tmp_path / "other"))
    assert other.state_dir == tmp_path / "other"


def test_folders_and_file_are_private(tmp_path: Path) -> None:
    """Folders are 0700, also when they were there with more; the file is 0600."""
    (tmp_path / "run").mkdir(mode=0o755)
    settings = load(tmp_path)
    settings.write()
    modes = [settings.runtime_dir, settings.state_dir, settings.settings_path]
    assert [stat.S_IMODE(path.stat().st_mode) for path in modes] == [0o700, 0o700, 0o600]


@pytest.mark.parametrize("text", ["{", "[]", '{"colour": 1}'])
def test_damaged_file_is_refused(tmp_path: Path, text: str) -> None:
    """A file that can't be understood is an error with its path, never ignored."""
    load(tmp_path).make_folders()
    load(tmp_path).settings_path.write_text(text)
    with pytest.raises(errors.InvalidArgument) as caught:
        load(tmp_path)
    assert caught.value.reason == "CONFIG_INVALID"
    assert caught.value.metadata["field"] == str(tmp_path / "run" / "settings.json")


def test_settings_of_another_user_are_roots(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nothing in them is to be corrected."""

    def refuse(_: Path) -> str:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(Path, "read_text", refuse)
    with pytest.raises(errors.InvalidArgument) as caught:
        Settings.load({"AETHER_RUNTIME_DIR": str(tmp_path)})
    assert caught.value.remedy == "run it as root, with sudo"


def test_too_long_runtime_folder_is_refused() -> None:
    """Sockets have short paths; the folder is refused before anything is made."""
    with pytest.raises(errors.InvalidArgument) as caught:
        Settings.load({"AETHER_RUNTIME_DIR": "/" + "x" * 100})
    assert "107" in caught.value.metadata["problem"]


def test_orchestrator_id_follows_the_real_folder(tmp_path: Path) -> None:
    """The same folder through a link is the same orchestrator; another folder is another."""
    (tmp_path / "a").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / "a")
    machine = tmp_path / "machine-id"
    machine.write_text("0123\n")
    wanted = hashlib.sha256(f"0123:{tmp_path / 'a'}".encode()).hexdigest()[:6]
    assert orchestrator_id(tmp_path / "a", machine) == wanted
    assert orchestrator_id(tmp_path / "link", machine) == wanted
    assert orchestrator_id(tmp_path / "b", machine) != wanted


@pytest.mark.parametrize("text", [None, "", "\n"])
def test_missing_machine_id_is_typed(tmp_path: Path, text: str | None) -> None:
    """A host without an id is told what to run."""
    machine = tmp_path / "machine-id"
    if text is not None:
        machine.write_text(text)
    with pytest.raises(errors.FailedPrecondition) as caught:
        orchestrator_id(tmp_path, machine)
    assert caught.value.reason == "MACHINE_ID_MISSING"
    assert "systemd-machine-id-setup" in caught.value.remedy


def test_names(tmp_path: Path) -> None:
    """Names on the host hold the orchestrator's id; a link's name fits in 15 bytes."""
    settings = load(tmp_path)
    identity = settings.orchestrator_id
    assert settings.cgroup_name == f"aether-{identity}"
    assert settings.nft_table == f"aether_{identity}"
    assert settings.link_name(0x3FF) == f"ae{identity}3ff"
    assert len(settings.link_name(0xFFFFFFF)) == 15
    assert settings.socket_path("ipc") == tmp_path / "run" / "ipc.sock"
    assert settings.instance_dir("f-r1-0") == tmp_path / "run" / "instances" / "f-r1-0"
    assert settings.snapshot_path("f-r1") == Path("/dev/shm/aetherless") / identity / "f-r1"
    assert settings.unfinished_snapshot_path("f-r1").name == ".tmp-f-r1"
    assert settings.root_path("f", 2) == tmp_path / "lib" / "roots" / "f" / "2"


def test_prefix() -> None:
    """The named one, else the stored one, else the checkout's, else the system's."""
    assert find_prefix({"AETHER_PREFIX": "/named"}, "/stored") == Path("/named")
    assert find_prefix({}, "/stored") == Path("/stored")
    assert find_prefix({}).parts[-2:] == ("lib", "aetherless")


def test_atomic_write_replaces(tmp_path: Path) -> None:
    """The new text is there, with the mode asked for, and no scratch file stays."""
    path = tmp_path / "file"
    path.write_text("old")
    write_atomically(path, "new", 0o640)
    assert path.read_text() == "new"
    assert stat.S_IMODE(path.stat().st_mode) == 0o640
    assert list(tmp_path.iterdir()) == [path]
