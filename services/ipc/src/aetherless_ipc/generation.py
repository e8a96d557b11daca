# SPDX-License-Identifier: Apache-2.0
"""How often a channel was attached to: counted across restarts of the service, none given twice."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

from aetherless_common.errors import DataLoss

if TYPE_CHECKING:
    from pathlib import Path

PRIVATE_FILE = 0o600


class Generation:
    """A count in a file of its own, which a peer that attaches does not wait for long.

    It is written in place: a number never has fewer digits than the one before, and a write of a
    few bytes is not torn by the service's death. It need not survive the host's crash: no region
    does.

    Args:
        path: the file; its folder exists. Without the file nothing was counted yet.

    Raises:
        DataLoss: STORE_CORRUPT, somebody else wrote to the file.
    """

    def __init__(self, path: Path) -> None:
        self._path = path
        self.number = self._read()

    def become_next(self) -> int:
        """Count one more, first in the file; return the number.

        Raises:
            OSError: it could not be written; the count is as before.
        """
        number = self.number + 1
        file = os.open(self._path, os.O_WRONLY | os.O_CREAT | os.O_CLOEXEC, PRIVATE_FILE)
        try:
            os.pwrite(file, b"%d\n" % number, 0)
        finally:
            os.close(file)
        self.number = number
        return number

    def remove(self) -> None:
        """Remove the file: the channel is gone."""
        self._path.unlink(missing_ok=True)

    def _read(self) -> int:
        try:
            return int(self._path.read_text() or 0)  # empty: it ended between making and writing
        except FileNotFoundError:
            return 0
        except ValueError as error:
            raise DataLoss(
                "STORE_CORRUPT",
                f"{self._path} has no number: {error}",
                {"path": self._path},
                remedy="aetherctl down, then up: channels are declared again",
            ) from error
