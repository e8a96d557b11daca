# SPDX-License-Identifier: Apache-2.0
"""Whether an edited program is seen as another one."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aetherless_cli.digest import digest_of

if TYPE_CHECKING:
    from pathlib import Path


def test_each_kind_of_change_is_seen(tmp_path: Path) -> None:
    """Contents, mode, a new file, a link that points elsewhere; not byte code and not a look."""
    handler = tmp_path / "hello.py"
    handler.write_text("one")
    link = tmp_path / "link"
    link.symlink_to("a")
    found = [digest_of(handler, tmp_path)]
    (tmp_path / "__pycache__").mkdir()
    (tmp_path / "__pycache__" / "hello.pyc").touch()
    assert digest_of(handler, tmp_path) == found[0]
    handler.write_text("other")
    found.append(digest_of(handler, tmp_path))
    handler.chmod(0o755)
    found.append(digest_of(handler, tmp_path))
    os.utime(handler, ns=(1, 1))
    found.append(digest_of(handler, tmp_path))
    (tmp_path / "data").touch()
    found.append(digest_of(handler, tmp_path))
    link.unlink()
    link.symlink_to("b")
    found.append(digest_of(handler, tmp_path))
    assert len(set(found)) == len(found)


def test_a_handler_alone_is_only_itself(tmp_path: Path) -> None:
    """Its neighbours do not belong to it."""
    handler = tmp_path / "hello.py"
    handler.write_text("one")
    before = digest_of(handler, None)
    (tmp_path / "neighbour").touch()
    assert digest_of(handler, None) == before
