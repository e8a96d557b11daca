# SPDX-License-Identifier: Apache-2.0
"""One thing that is wrong with a configuration file, and the error that carries them all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from aetherless_common import errors
from aetherless_common.errors import InvalidArgument

if TYPE_CHECKING:
    from pathlib import Path

DOMAIN = "cli.aetherless"


@dataclass(frozen=True, order=True)
class Violation:
    """One thing that is wrong, where it stands, and what to do about it.

    Line and column count from 1. ``reason`` is CONFIG_INVALID, or what the services would say of
    the same fault (for example HANDLER_NOT_FOUND).
    """

    line: int
    column: int
    field: str
    problem: str
    remedy: str = ""
    reason: str = "CONFIG_INVALID"

    def describe(self, path: Path) -> str:
        """Return ``file:line:column: field: problem`` as editors understand it."""
        place = f"{path}:{self.line}:{self.column}: "
        return place + (f"{self.field}: {self.problem}" if self.field else self.problem)


class ConfigError(InvalidArgument):
    """A configuration file is wrong; ``problems`` is never empty and in the file's order."""

    def __init__(self, path: Path, problems: list[Violation]) -> None:
        self.path = path
        self.problems = sorted(problems)
        first = self.problems[0]
        count = len(problems)
        super().__init__(
            "CONFIG_INVALID",
            f"{path} has {count} problem{'s' if count > 1 else ''}",
            {"path": path, "field": first.field, "problem": first.problem},
            domain=DOMAIN,
            violations=[
                errors.Violation(each.field, each.describe(path)) for each in self.problems
            ],
            remedy=first.remedy or "correct the lines named above; aetherctl validate checks again",
        )
