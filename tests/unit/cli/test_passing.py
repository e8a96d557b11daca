# SPDX-License-Identifier: Apache-2.0
"""Services for a moment: their folders go, unless something is left that only they tell of."""

from __future__ import annotations

import io
import shutil
from typing import TYPE_CHECKING

import pytest

from aetherless_cli import passing
from aetherless_cli.console import Console
from aetherless_common.errors import Internal

if TYPE_CHECKING:
    from pathlib import Path

    from aetherless_common.settings import Settings


def test_folders_that_are_needed_for_a_clean_up_stay(settings: Settings) -> None:
    """What is left over is told with the folder and with how to try again."""
    home: Path | None = None
    try:
        with pytest.raises(Internal) as raised, passing.folders(settings, "test") as own:  # noqa: PT012  # the end of the context is tried
            home = own.runtime_dir.parent
            own.runtime_dir.mkdir()
            (own.runtime_dir / "foreign").write_text("x")
            passing.take_down(own, Console("table", io.StringIO()))
        assert raised.value.reason == "CLEANUP_FAILED"
        assert str(home) in raised.value.message
        assert home is not None
        assert home.is_dir()
    finally:
        if home is not None:
            shutil.rmtree(home)


def test_folders_go_otherwise(settings: Settings) -> None:
    """Whatever else goes wrong in between."""
    with pytest.raises(ValueError, match="other"), passing.folders(settings, "test") as own:  # noqa: PT012  # the end of the context is tried
        home = own.runtime_dir.parent
        raise ValueError("other")
    assert not home.exists()
