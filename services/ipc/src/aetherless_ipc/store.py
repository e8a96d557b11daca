# SPDX-License-Identifier: Apache-2.0
"""What was declared, channels or pipelines: one file each, kept across restarts of the service."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Generic, Protocol, Self, TypeVar

from aetherless_common.errors import DataLoss
from aetherless_common.settings import write_atomically

if TYPE_CHECKING:
    from collections.abc import Iterable
    from pathlib import Path


class Declared(Protocol):
    """A declaration that JSON can hold."""

    def to_plain(self) -> dict[str, Any]:
        """Return it as JSON has it."""

    @classmethod
    def from_plain(cls, stored: dict[str, Any]) -> Self:
        """Return what ``to_plain`` gave.

        Raises:
            TypeError, ValueError, KeyError: it is not that.
        """


T = TypeVar("T", bound=Declared)


class DeclarationStore(Generic[T]):
    """Loads and saves all declarations of a kind at once.

    Args:
        path: the file, named by what it has; its folder exists.
        kind: the declarations' class.
    """

    def __init__(self, path: Path, kind: type[T]) -> None:
        self._path = path
        self._kind = kind

    def load(self) -> list[T]:
        """Return what was saved last; nothing when there is no file.

        Raises:
            DataLoss: STORE_CORRUPT. We write the file in one step, so somebody else changed it.
        """
        try:
            return [self._kind.from_plain(stored) for stored in json.loads(self._path.read_text())]
        except FileNotFoundError:
            return []
        except (ValueError, TypeError, KeyError) as error:
            raise DataLoss(
                "STORE_CORRUPT",
                f"{self._path} can't be understood: {error}",
                {"path": self._path},
                remedy=f"aetherctl down, then up: {self._path.stem} are declared again",
            ) from error

    def save(self, declarations: Iterable[T]) -> None:
        """Replace the file. It need not survive the host's crash: no region does."""
        stored = [declaration.to_plain() for declaration in declarations]
        write_atomically(self._path, json.dumps(stored), sync=False)
