# SPDX-License-Identifier: Apache-2.0
"""The declared channels, kept in one file across restarts of the service."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from aetherless_common.errors import DataLoss
from aetherless_common.settings import write_atomically
from aetherless_ipc.channel import Declaration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class DeclarationStore:
    """Loads and saves all declarations at once.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[Declaration]:
        """Return what was saved last; nothing when there is no file.

        Raises:
            DataLoss: STORE_CORRUPT. We write the file in one step, so somebody else changed it.
        """
        try:
            return [Declaration.restored(stored) for stored in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError) as error:
            raise DataLoss(
                "STORE_CORRUPT",
                f"{self._path} can't be understood: {error}",
                {"path": self._path},
                remedy="aetherctl down, then up: channels are declared again",
            ) from error

    def save(self, declarations: Iterable[Declaration]) -> None:
        """Replace the file. It need not survive the host's crash: no region does."""
        stored = [dataclasses.asdict(declaration) for declaration in declarations]
        write_atomically(self._path, json.dumps(stored), sync=False)
