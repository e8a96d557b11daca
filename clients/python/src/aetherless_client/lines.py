# SPDX-License-Identifier: Apache-2.0
"""What the service says on the side socket: a word, then fields."""

from __future__ import annotations

from typing import NamedTuple

LONGEST_LINE = 1024


class Line(NamedTuple):
    """One message: ``word name=value name=value``; a value may be empty."""

    word: str
    fields: dict[str, str]

    @classmethod
    def parse(cls, said: bytes) -> Line:
        """Return what was said."""
        word, *fields = said.decode(errors="replace").split(" ")
        return cls(word, dict(field.partition("=")[::2] for field in fields))

    def number(self, name: str) -> int:
        """Return a field that is a number; 0 when it is missing or none."""
        value = self.fields.get(name, "")
        return int(value) if value.isdecimal() else 0

    def text(self, name: str) -> str:
        """Return a field; nothing when it is missing."""
        return self.fields.get(name, "")
