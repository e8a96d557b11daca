# SPDX-License-Identifier: Apache-2.0
"""Where handlers are looked for, and which folder is a function's own."""

from __future__ import annotations

from pathlib import Path

import pytest

from aetherless_cli.config.paths import PathError, default_root, find_handler, find_root


@pytest.fixture
def places(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[Path, Path]:
    """Return the configuration's folder and the current one."""
    folder, cwd = tmp_path / "conf", tmp_path / "cwd"
    folder.mkdir()
    cwd.mkdir()
    monkeypatch.chdir(cwd)
    return folder, cwd


def test_beside_the_file_first_then_in_the_current_folder(places: tuple[Path, Path]) -> None:
    """A relative path is looked for in both places."""
    folder, cwd = places
    (cwd / "a.py").touch()
    assert find_handler("a.py", folder) == cwd / "a.py"
    (cwd / "a.py").unlink()
    (folder / "a.py").touch()
    assert find_handler("a.py", folder) == folder / "a.py"


def test_two_candidates_are_refused(places: tuple[Path, Path]) -> None:
    """Which one was meant can't be known."""
    folder, cwd = places
    (folder / "a.py").touch()
    (cwd / "a.py").touch()
    with pytest.raises(PathError, match="two files fit"):
        find_handler("a.py", folder)


def test_one_file_by_two_ways_is_one_candidate(places: tuple[Path, Path]) -> None:
    """A link to the same file is no second candidate."""
    folder, cwd = places
    (folder / "a.py").touch()
    (cwd / "a.py").symlink_to(folder / "a.py")
    assert find_handler("a.py", folder) == folder / "a.py"


def test_missing_and_unusable_handlers_have_their_reason(places: tuple[Path, Path]) -> None:
    """The reasons are those that the snapshotter has for the same faults."""
    folder, _ = places
    with pytest.raises(PathError) as missing:
        find_handler("a.py", folder)
    assert missing.value.reason == "HANDLER_NOT_FOUND"
    assert str(folder / "a.py") in missing.value.problem
    (folder / "a.bin").touch(mode=0o644)
    with pytest.raises(PathError) as plain:
        find_handler("a.bin", folder)
    assert plain.value.reason == "HANDLER_NOT_EXECUTABLE"
    with pytest.raises(PathError, match="no regular file"):
        find_handler(str(folder), folder)


def test_a_link_keeps_the_name_it_is_called_by(places: tuple[Path, Path]) -> None:
    """A virtual environment's python must not become the system's."""
    folder, _ = places
    (folder / "python").symlink_to("/usr/bin/python3")
    assert find_handler("./sub/../python", folder) == folder / "python"


@pytest.mark.parametrize(
    "handler",
    ["/x.py", "/tmp/x.py", "/root/x.py", "/usr/lib/app/x.py", "/usr/bin/x", "/dev/shm/x.py"],
)
def test_shared_folders_are_nobodys_root(handler: str) -> None:
    """A handler that lies directly in them brings only itself."""
    assert default_root(Path(handler)) is None


def test_any_other_folder_is_the_functions_own() -> None:
    """The handler's folder goes with it."""
    assert default_root(Path("/srv/app/x.py")) == Path("/srv/app")
    assert default_root(Path("/root/app/x.py")) == Path("/root/app")


def test_a_declared_root_must_hold_the_handler(places: tuple[Path, Path]) -> None:
    """Else the program would not be in the sandbox."""
    folder, cwd = places
    handler = folder / "bin" / "a.py"
    assert find_root(".", folder, handler) == folder
    with pytest.raises(PathError, match="is not below"):
        find_root(str(cwd), folder, handler)
    with pytest.raises(PathError, match="no such folder"):
        find_root("none", folder, handler)
