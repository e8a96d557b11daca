# SPDX-License-Identifier: Apache-2.0
"""The declared pipelines, kept in one file across restarts of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING

from aetherless_common.errors import DataLoss
from aetherless_common.settings import write_atomically
from aetherless_ipc.pipeline import PipelineDeclaration

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class PipelineStore:
    """Loads and saves all declarations at once.

    Args:
        path: the file; its folder exists.
    """

    def __init__(self, path: Path) -> None:
        self._path = path

    def load(self) -> list[PipelineDeclaration]:
        """Return what was saved last; nothing when there is no file.

        Raises:
            DataLoss: STORE_CORRUPT. We write the file in one step, so somebody else changed it.
        """
        try:
            stored = json.loads(self._path.read_text())
            return [PipelineDeclaration.from_plain(each) for each in stored]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise DataLoss(
                "STORE_CORRUPT",
                f"{self._path} can't be understood: {error}",
                {"path": self._path},
                remedy="aetherctl down, then up: pipelines are declared again",
            ) from error

    def save(self, declarations: Iterable[PipelineDeclaration]) -> None:
        """Replace the file. It need not survive the host's crash: no region does."""
        stored = [declaration.to_plain() for declaration in declarations]
        write_atomically(self._path, json.dumps(stored), sync=False)
